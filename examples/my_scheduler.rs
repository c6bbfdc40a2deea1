//! A scheduler of your own, with the whole command line around it:
//!
//!     cargo run --release --example my_scheduler -- compare --schedulers mine,sarathi
//!
//! Shortest prompt first: decodes always run, and of the prompts that wait, the shortest starts.
//!
//! In a crate of your own, depend on `metron` by its git repository and keep this file as `main.rs`.
//! Policies with chunked prefills, preemption and options of their own: `crates/schedulers/src`
//! (`sarathi.rs` is a screen and a half; `registry.rs` shows how options are registered).

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
            // It can be admitted from now on. Its true output length is not told to policies.
            Event::Arrived(request) => self.waiting.push((request.prompt_tokens(), request.id())),
            // A step is done; a policy that adapts to how long steps take looks at it here.
            Event::Stepped(_) => {}
            Event::Finished(id) | Event::Aborted(id) => {
                self.waiting.retain(|(_, waiting)| *waiting != id);
                self.running.retain(|running| *running != id);
            }
        }
    }

    /// Puts sequences into the next step. What can't be (no slot, no KV block) is refused and changes
    /// nothing; a refusal that `?` lets out ends the run with an error that names the policy.
    fn plan(&mut self, plan: &mut Planner<'_>) -> Result<Wake, Refused> {
        for &id in &self.running {
            // One pending position: the token that was generated last.
            plan.run(id, 1)?;
        }
        self.waiting.sort_unstable();
        // Reserving the whole length makes preemption unnecessary.
        let whole_length = plan.limits().longest_sequence();
        while let Some(&(prompt_tokens, id)) = self.waiting.first() {
            // A slot, and blocks for so many positions, keeping 0 blocks free for others.
            if plan.admit(id, whole_length, 0).is_err() {
                break;
            }
            // The whole prompt in one step; fewer tokens would be a chunk of it.
            plan.run(id, prompt_tokens)?;
            self.running.push(id);
            self.waiting.remove(0);
        }
        // An empty plan is asked again at the next arrival.
        Ok(Wake::OnEvent)
    }
}

fn main() -> ExitCode {
    let registry = Registry::default()
        .with("mine", "shortest prompt first", || Box::new(ShortestPromptFirst::default()));
    metron::cli::main_with(&registry)
}
