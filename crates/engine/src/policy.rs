use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::EngineError;
use crate::planner::Planner;
use crate::scheduler::{Event, Scheduler, Wake};

/// A scheduler as the loop deals with it: whatever goes wrong inside is an error with its name.
pub(crate) struct Policy<'a> {
    pub(crate) name: &'a str,
    pub(crate) scheduler: &'a mut dyn Scheduler,
}

impl Policy<'_> {
    /// Asks for step `step`.
    pub(crate) fn plan(
        &mut self,
        planner: &mut Planner<'_>,
        step: u64,
    ) -> Result<Wake, EngineError> {
        self.guarded(step, |scheduler| scheduler.plan(planner))?.map_err(|refused| {
            EngineError::ImpossiblePlan { policy: self.name.to_owned(), step, refused }
        })
    }

    /// Tells of an event; `step` is the next to be planned.
    pub(crate) fn tell(&mut self, event: Event<'_>, step: u64) -> Result<(), EngineError> {
        self.guarded(step, |scheduler| scheduler.observe(event))
    }

    fn guarded<T>(
        &mut self,
        step: u64,
        call: impl FnOnce(&mut dyn Scheduler) -> T,
    ) -> Result<T, EngineError> {
        catch_unwind(AssertUnwindSafe(|| call(self.scheduler))).map_err(|payload| {
            EngineError::PolicyPanicked {
                policy: self.name.to_owned(),
                step,
                message: panic_message(payload.as_ref()),
            }
        })
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
