//! A scheduler of your own, with the whole command line around it:
//!
//!     cargo run --release --example my_scheduler -- compare --schedulers mine,sarathi
//!
//! Shortest prompt first: decodes always run, and of the prompts that wait, the shortest starts.

use std::process::ExitCode;

use metron::prelude::*;

#[derive(Default)]
struct ShortestPromptFirst {
    waiting: Vec<(u32, RequestId)>,
    running: Vec<RequestId>,
}

impl Scheduler for ShortestPromptFirst {
    fn observe(&mut self, event: Event<'_>) {
        match event {
            Event::Arrived(request) => self.waiting.push((request.prompt_tokens(), request.id())),
            Event::Stepped(_) => {}
            Event::Finished(id) | Event::Aborted(id) => {
                self.waiting.retain(|(_, waiting)| *waiting != id);
                self.running.retain(|running| *running != id);
            }
        }
    }

    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        for &id in &self.running {
            plan.run(id, 1)?;
        }
        self.waiting.sort_unstable();
        // Reserving the whole length makes preemption unnecessary.
        let whole_length = plan.limits().longest_sequence();
        while let Some(&(prompt_tokens, id)) = self.waiting.first() {
            if plan.admit(id, whole_length, 0).is_err() {
                break;
            }
            plan.run(id, prompt_tokens)?;
            self.running.push(id);
            self.waiting.remove(0);
        }
        Ok(Wake::OnEvent)
    }
}

fn main() -> ExitCode {
    let registry = Registry::default()
        .with("mine", "shortest prompt first", || Box::new(ShortestPromptFirst::default()));
    metron::cli::main_with(&registry)
}
