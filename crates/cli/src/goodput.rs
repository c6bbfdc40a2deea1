use std::ffi::OsString;

const GOODPUT: &str = "--goodput";

/// A command line on which the limits behind `--goodput` are one word, as `--goodput "ttft:200
/// tpot:50"`: `vllm bench serve` takes any number of words there, and what follows the limits here
/// may be a trace's directory. A limit has a colon.
pub(crate) fn with_limits_as_one_word(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut words = words.peekable();
    let mut joined = Vec::new();
    while let Some(word) = words.next() {
        let is_goodput = word == GOODPUT;
        joined.push(word);
        if is_goodput {
            let is_limit = |word: &OsString| word.to_str().is_some_and(|word| word.contains(':'));
            let limits: Vec<OsString> = std::iter::from_fn(|| words.next_if(is_limit)).collect();
            if !limits.is_empty() {
                joined.push(limits.join(" ".as_ref()));
            }
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[&str]) {
        let words = line.split(' ').map(OsString::from);
        assert_eq!(
            with_limits_as_one_word(words),
            expected.iter().map(OsString::from).collect::<Vec<_>>()
        );
    }

    #[test]
    fn limits_end_at_the_first_word_that_is_none() {
        check("--goodput ttft:200 tpot:50 DIR", &["--goodput", "ttft:200 tpot:50", "DIR"]);
        check("--goodput ttft:200 --json", &["--goodput", "ttft:200", "--json"]);
        check("DIR --goodput", &["DIR", "--goodput"]);
        check("--goodput ttft DIR", &["--goodput", "ttft", "DIR"]);
        check("a:b --goodput=ttft:1 c:d", &["a:b", "--goodput=ttft:1", "c:d"]);
    }
}
