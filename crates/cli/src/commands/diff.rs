use std::path::PathBuf;

use metron_metrics::summarise;
use metron_report::{Diff, Pair, Side};
use metron_trace::Trace;

use crate::args::{DiffArgs, ScoringArgs};
use crate::exit::{Failure, Kind, OrFail};
use crate::print;
use crate::saved::{SavedRuns, scoring};

/// `metron diff`: the metrics of two saved results side by side, and what differs in their inputs.
pub(crate) fn run(args: &DiffArgs) -> Result<(), Failure> {
    let (a, b) = (Saved::load(&args.a)?, Saved::load(&args.b)?);
    let names = [&args.a, &args.b].map(|path| path.display().to_string());
    let mut diff = Diff {
        names: [&names[0], &names[1]],
        pairs: Vec::new(),
        alone: [a.without(&b), b.without(&a)],
    };
    // Where each has one policy those two are compared, whatever they are called.
    if let ([of_a], [of_b]) = (a.policies.as_slice(), b.policies.as_slice()) {
        diff.pairs.push(pair(&a, of_a, &b, of_b, &args.scoring)?);
        diff.alone = [Vec::new(), Vec::new()];
    } else {
        for policy in a.policies.iter().filter(|policy| b.policies.contains(policy)) {
            diff.pairs.push(pair(&a, policy, &b, policy, &args.scoring)?);
        }
    }
    if diff.pairs.is_empty() {
        let error = anyhow::anyhow!(
            "{} and {} have no policy in common ({}; {}); name a trace of each to compare any two",
            names[0],
            names[1],
            a.policies.join(", "),
            b.policies.join(", ")
        );
        return Err(Failure { kind: Kind::Input, error });
    }
    if args.json {
        print::result(&diff.to_json().or_fail(Kind::Internal)?);
    } else {
        print::result(&diff.to_text());
    }
    Ok(())
}

/// A saved result: its runs, and whose they are.
struct Saved {
    runs: SavedRuns,
    policies: Vec<String>,
}

impl Saved {
    fn load(path: &PathBuf) -> Result<Self, Failure> {
        let runs = SavedRuns::read(std::slice::from_ref(path))?;
        let policies = runs.policies();
        Ok(Self { runs, policies })
    }

    fn without<'a>(&'a self, other: &Self) -> Vec<&'a str> {
        let alone = self.policies.iter().filter(|policy| !other.policies.contains(policy));
        alone.map(String::as_str).collect()
    }

    fn side<'a>(&'a self, policy: &'a str, asked: &ScoringArgs) -> Result<Side<'a>, Failure> {
        let own = |trace: &&Trace| trace.header.policy.label == policy;
        let traces: Vec<&Trace> = self.runs.traces.iter().filter(own).collect();
        let scoring = scoring(traces[0], asked)?;
        Ok(Side {
            policy,
            replicates: traces.len(),
            header: &traces[0].header,
            summary: summarise(&traces, &scoring),
            scoring,
        })
    }
}

fn pair<'a>(
    a: &'a Saved,
    of_a: &'a str,
    b: &'a Saved,
    of_b: &'a str,
    asked: &ScoringArgs,
) -> Result<Pair<'a>, Failure> {
    Ok(Pair { a: a.side(of_a, asked)?, b: b.side(of_b, asked)? })
}
