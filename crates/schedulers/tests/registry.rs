//! Policies by name: options that are wrong are named, and a name can be taken over.

use metron_schedulers::{Defaults, Orca, PolicySpec, Registry};
use metron_trace::Limits;

const DEFAULTS: Defaults = Defaults {
    limits: Limits { block_size: 16, num_blocks: 8, max_num_seqs: 2, max_model_len: 64 },
    token_budget: 256,
};

fn refused(policy: &str) -> String {
    let built = policy
        .parse::<PolicySpec>()
        .and_then(|spec| Registry::default().build(&spec, &DEFAULTS).map(|(_, info)| info));
    built.expect_err("it can't be").to_string()
}

#[test]
fn an_option_whose_value_is_wrong_is_named() {
    assert_eq!(
        refused("sarathi:token_budget=abc"),
        "policy `sarathi`: option token_budget: invalid type: string \"abc\", expected u32"
    );
    assert_eq!(
        refused("sarathi:token_budget=-1"),
        "policy `sarathi`: option token_budget: invalid value: integer `-1`, expected u32"
    );
}

#[test]
fn an_option_that_is_given_twice_is_refused() {
    assert_eq!(
        refused("sarathi:token_budget=1:token_budget=400"),
        "policy `sarathi`: its option `token_budget` is given twice; leave one out"
    );
}

#[test]
fn a_policy_of_the_users_own_takes_over_a_name() {
    let registry = Registry::default().with("sarathi", "mine", || Box::new(Orca::default()));
    let of_name: Vec<&str> = registry
        .list()
        .filter(|(names, _)| names.iter().any(|name| name == "sarathi"))
        .map(|(_, about)| about)
        .collect();
    assert_eq!(of_name, ["mine"]);
    let spec: PolicySpec = "sarathi".parse().expect("it is a name");
    let (_, info) = registry.build(&spec, &DEFAULTS).expect("it is there");
    assert_eq!(info.options, serde_json::json!({}), "the original has a token budget");
}
