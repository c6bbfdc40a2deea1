use std::cmp::Reverse;
use std::fmt::Write;
use std::time::Duration;

use metron_metrics::{Blame, Cause, Explanation, LatePart, LateToken, Scored, Where};
use metron_trace::{EndStatus, RequestId, Timestamp};

use crate::units::{milliseconds, seconds, three_digits};

/// So many late tokens are told of, the latest.
const MOST_TOLD: usize = 12;

/// A cause with less than this part of a token's lateness is told with the other small ones.
const LEAST_TOLD: u64 = 100;

/// The story of one request in sentences, with the times of its tokens. `policy` is who served it.
pub fn explanation_text(policy: &str, story: &Explanation) -> String {
    let mut text = arrival(policy, story);
    if let Some(scored) = &story.scored {
        text.push_str(&deadlines(scored));
    } else {
        text.push_str("It has no deadlines: give --ttft-deadline and --tbt-deadline.\n");
    }
    text.push_str(&late_tokens(story));
    text.push_str(&token_times(story));
    text
}

fn arrival(policy: &str, story: &Explanation) -> String {
    let after = |at: Timestamp| time((at - story.arrived_at).as_nanos());
    let scheduled = story.first_scheduled_at.map_or_else(
        || "it was never scheduled".to_owned(),
        |at| format!("its first step started {} later", after(at)),
    );
    let tokens = story.tokens.len();
    let last = story.tokens.last().map_or_else(String::new, |last| {
        format!(", the last {} after its arrival", after(last.ready_at))
    });
    let end = match story.status {
        Some(EndStatus::Finished) => "it finished",
        Some(EndStatus::Failed) => "it failed",
        Some(EndStatus::TimedOut) => "it timed out",
        Some(EndStatus::Cancelled) => "it was cancelled",
        Some(EndStatus::Unsent) => "it was never sent",
        None => "it was in progress when the trace ended",
    };
    format!(
        "{} under {policy} arrived at {} with a prompt of {}; {scheduled}. It got {}{last}; {end}.\n",
        capital(&story.request.to_string()),
        seconds(story.arrived_at.as_secs_f64()),
        count(story.prompt_tokens as usize, "token"),
        count(tokens, "token"),
    )
}

fn deadlines(scored: &Scored) -> String {
    let index = scored.fluidity.index();
    let index = index.map_or_else(|| "none".to_owned(), three_digits);
    format!(
        "Its first token was due within {}, each later one within {} of the one before: it met {} \
         and missed {} (fluidity-index {index}).\n",
        time(u128::from(scored.first_token_ns)),
        time(u128::from(scored.next_token_ns)),
        count(scored.fluidity.met as usize, "deadline"),
        scored.fluidity.missed,
    )
}

fn late_tokens(story: &Explanation) -> String {
    if story.late.is_empty() {
        let none = if story.scored.is_some() { "No token was late.\n" } else { "" };
        return none.to_owned();
    }
    let mut told: Vec<&LateToken> = story.late.iter().collect();
    told.sort_by_key(|late| Reverse(late.late_ns));
    let left_out = told.split_off(told.len().min(MOST_TOLD));
    told.sort_by_key(|late| late.token);
    let mut text = match &story.estimated_blame {
        Some(blame) => whole_blame(blame),
        None => {
            "Why is not known: the trace has no steps, or no calibration to hold them against.\n"
                .to_owned()
        }
    };
    for late in told {
        text.push_str(&late_token(late, story.request));
    }
    if !left_out.is_empty() {
        let together = left_out.iter().map(|late| u128::from(late.late_ns)).sum();
        let more = count(left_out.len(), "more token");
        let _ = writeln!(text, "\n{more} came late, by {} together.", time(together));
    }
    text
}

/// `It missed them for (estimated): prefill of others 7, waiting in the queue 2.`
fn whole_blame(blame: &Blame) -> String {
    let mut causes: Vec<_> = blame.causes.iter().filter(|own| own.missed > 0).collect();
    causes.sort_by_key(|own| Reverse(own.missed));
    let causes: Vec<String> =
        causes.iter().map(|own| format!("{} {}", own.cause.name(), own.missed)).collect();
    format!("Missed deadlines by cause (estimated): {}.\n", causes.join(", "))
}

fn late_token(late: &LateToken, request: RequestId) -> String {
    let step = late.step.map_or_else(String::new, |step| format!(", in step {step}"));
    let ns = |ns: u64| time(u128::from(ns));
    let alone = late
        .alone_ns
        .map_or_else(String::new, |alone| format!(", its own work alone takes {}", ns(alone)));
    let since = late.after.map_or_else(
        || "its arrival".to_owned(),
        |token| format!("token {token}, which left no slack,"),
    );
    let mut text = format!(
        "\nToken {} came {} late{step}. Since {since} it was allowed {}{alone}, and it took {}:\n",
        late.token,
        ns(late.late_ns),
        ns(late.allowed_ns),
        ns(late.window_ns),
    );
    let is_told = |part: &&LatePart| part.lateness_ns >= late.late_ns / LEAST_TOLD;
    for part in late.parts.iter().filter(is_told) {
        let _ = writeln!(text, "  {}", part_sentence(part, request));
    }
    text.push_str(&lesser_parts(late.parts.iter().filter(|part| !is_told(part))));
    text
}

/// `0.786 ms for lesser causes: the engine, unexplained`.
fn lesser_parts<'a>(parts: impl Iterator<Item = &'a LatePart>) -> String {
    let (mut together, mut names) = (0, Vec::new());
    for part in parts {
        together += u128::from(part.lateness_ns);
        names.push(part.cause.name());
    }
    if names.is_empty() {
        return String::new();
    }
    format!("  {} for lesser causes: {}\n", time(together), names.join(", "))
}

/// How much of the lateness was for what, as a sentence's rest.
fn part_sentence(part: &LatePart, request: RequestId) -> String {
    let of = if part.cause == Cause::Model || part.delay_ns == part.lateness_ns {
        String::new()
    } else {
        format!(" (of a delay of {})", time(u128::from(part.delay_ns)))
    };
    format!("{}{of} {}", time(u128::from(part.lateness_ns)), why(part, request))
}

fn why(part: &LatePart, request: RequestId) -> String {
    let Some(place) = &part.place else {
        return match part.cause {
            Cause::Model => "because its own work alone takes longer than that".to_owned(),
            Cause::Queue => "waiting in the queue, while nothing ran".to_owned(),
            cause => format!("for {}, between steps", cause.name()),
        };
    };
    let ran = |what: &str| ran(&place.ran, what, request);
    let longest = time(u128::from(place.longest_ns));
    let what = match part.cause {
        Cause::Queue => "waiting in the queue",
        Cause::Blocks => "waiting for KV blocks",
        Cause::Prefill => "for others' prefill",
        Cause::Recomputation => "for computing again what a preemption had lost",
        Cause::BatchGrowth => "for larger batches",
        Cause::Scheduler => "for the scheduler's own time",
        Cause::Engine => "for the engine's overhead",
        Cause::Model | Cause::Unexplained => "unexplained",
    };
    let there = match part.cause {
        Cause::Queue | Cause::Blocks => format!(", which ran {}", ran("tokens")),
        Cause::Prefill => format!(", {} carried {}", which(place), ran("prompt tokens")),
        Cause::Recomputation => format!(", {} recomputed {}", which(place), ran("tokens")),
        Cause::BatchGrowth => {
            format!(", with {} beside it{}", count(place.ran.len(), "other"), then(place))
        }
        Cause::Scheduler | Cause::Engine if place.steps == 1 => String::new(),
        Cause::Scheduler | Cause::Engine => format!(", {longest} of it{}", then(place)),
        Cause::Model | Cause::Unexplained => {
            format!(", {} took {longest} longer than its contents account for", which(place))
        }
    };
    format!("{what} {}{there}", through(place))
}

/// `which` of a single step, `of which step 8` of several.
fn which(place: &Where) -> String {
    if place.steps == 1 { "which".to_owned() } else { format!("of which step {}", place.longest) }
}

/// Nothing of a single step, ` in step 8` of several.
fn then(place: &Where) -> String {
    if place.steps == 1 { String::new() } else { format!(" in step {}", place.longest) }
}

/// `in step 8`, `in steps 8 and 9`, `in 5 steps from 8 to 14`.
fn through(place: &Where) -> String {
    match place.steps {
        1 => format!("in step {}", place.first),
        2 => format!("in steps {} and {}", place.first, place.last),
        n => format!("in {n} steps from {} to {}", place.first, place.last),
    }
}

/// `512 prefill tokens of request 9, 40 of request 3 and 60 of 7 others`.
fn ran(ran: &[(RequestId, u32)], what: &str, request: RequestId) -> String {
    const NAMED: usize = 3;
    let (named, others) = ran.split_at(ran.len().min(NAMED));
    let whose = |id: RequestId| {
        if id == request { "of its own".to_owned() } else { format!("of {id}") }
    };
    let mut parts: Vec<String> = named
        .iter()
        .enumerate()
        .map(|(at, (id, tokens))| {
            let what = if at == 0 { format!(" {}", noun(*tokens, what)) } else { String::new() };
            format!("{tokens}{what} {}", whose(*id))
        })
        .collect();
    if !others.is_empty() {
        let tokens: u64 = others.iter().map(|(_, tokens)| u64::from(*tokens)).sum();
        parts.push(format!("{tokens} of {}", count(others.len(), "other")));
    }
    match parts.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

fn token_times(story: &Explanation) -> String {
    const A_LINE: usize = 10;
    if story.tokens.is_empty() {
        return String::new();
    }
    let cell = |token: &metron_metrics::TokenTime| {
        let is_late = token.due_at.is_some_and(|due| due < token.ready_at);
        let after = milliseconds((token.ready_at - story.arrived_at).as_secs_f64());
        format!("{after}{}", if is_late { "!" } else { " " })
    };
    let cells: Vec<String> = story.tokens.iter().map(cell).collect();
    let width = cells.iter().map(String::len).max().unwrap_or(0);
    let mut text = "\nTokens ready, ms after the arrival (! late):\n".to_owned();
    for (line, cells) in cells.chunks(A_LINE).enumerate() {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>width$}")).collect();
        let _ = writeln!(text, "{:>6}  {}", line * A_LINE, cells.join(" ").trim_end());
    }
    text
}

fn time(ns: u128) -> String {
    seconds(Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)).as_secs_f64())
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A plural noun, for one thing without its s.
fn noun(n: u32, plural: &str) -> &str {
    if n == 1 { plural.trim_end_matches('s') } else { plural }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
