//! The page in a real browser: it renders, its console stays empty, and it asks no network.
//!
//! Without a browser these tests say so and pass, unless `METRON_REQUIRE_BROWSER=1`;
//! `scripts/install-browser.sh` installs one.

#![cfg(unix)]

mod searched;
mod served;
mod support;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use metron_trace::Origin;
use rustix::process::{Pid, Signal, kill_process_group};
use searched::{brackets, with_search};
use serde_json::Value;
use served::Experiment;
use support::with_report;

const PICTURE: &str = "http://metron.invalid/picture.png";

/// What a browser made of a page.
struct Rendered {
    document: String,
    /// Everything written to the console.
    console: Vec<String>,
    /// Every address that the page asked the network for.
    requests: Vec<String>,
}

#[test]
fn the_page_renders_its_figures_without_a_complaint_or_a_request() {
    let html = Experiment::of(&["static", "orca", "vllm-v0", "sarathi"], 60)
        .report(|report| report.to_html().expect("the template is whole"));
    let Some(rendered) = render(&html) else { return };
    assert_eq!(rendered.console, [""; 0]);
    assert_eq!(rendered.requests, [""; 0]);
    let count = |part: &str| rendered.document.matches(part).count();
    // The causes, the streams of two requests and the batches under four policies, and three distributions.
    assert_eq!(count("<figure>"), 1 + 2 * 4 + 3 + 4);
    assert_eq!(count("<svg xmlns="), count("<figure>"), "every figure has its picture");
    for section in ["blame", "streams", "distributions", "batches", "facts"] {
        assert_eq!(count(&format!("<section id=\"{section}\">")), 1, "{section}");
    }
}

#[test]
fn the_page_of_a_capacity_renders_its_figures_without_a_complaint_or_a_request() {
    let html = with_search(Origin::Measured, &brackets(), |search| {
        search.to_html().expect("the template is whole")
    });
    let Some(rendered) = render(&html) else { return };
    assert_eq!(rendered.console, [""; 0]);
    assert_eq!(rendered.requests, [""; 0]);
    let count = |part: &str| rendered.document.matches(part).count();
    // The brackets, and the runs of two policies under one objective each.
    assert_eq!((count("<figure>"), count("<svg xmlns=")), (1 + 2, 1 + 2));
    for section in ["brackets", "doubts", "probes", "facts"] {
        assert_eq!(count(&format!("<section id=\"{section}\">")), 1, "{section}");
    }
}

#[test]
fn a_label_is_shown_and_not_run() {
    let html = with_report(|report| report.to_html().expect("the template is whole"));
    let Some(rendered) = render(&html) else { return };
    assert!(rendered.document.contains("&lt;b&gt;mine&lt;/b&gt;"), "{}", rendered.document);
    assert_eq!(rendered.console, [""; 0]);
}

/// The page forbids itself any request: a picture from elsewhere is refused, and the console says so.
#[test]
fn the_page_forbids_itself_the_network() {
    let html = with_report(|report| report.to_html().expect("the template is whole"));
    let reaching = html.replace("</body>", &format!("<img src=\"{PICTURE}\"></body>"));
    let Some(rendered) = render(&reaching) else { return };
    assert_eq!(rendered.requests, [""; 0]);
    let complains = |line: &String| line.contains("Content Security Policy");
    assert!(rendered.console.iter().any(complains), "{:?}", rendered.console);
}

#[test]
fn a_request_or_an_error_of_a_page_would_be_seen() {
    let html = format!("<img src=\"{PICTURE}\"><script>console.error('seen')</script>");
    let Some(rendered) = render(&html) else { return };
    assert_eq!(rendered.requests, [PICTURE]);
    assert!(rendered.console.iter().any(|line| line.contains("seen")), "{:?}", rendered.console);
}

/// An installed browser.
#[expect(clippy::print_stdout, reason = "what was not tested is said")]
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|program| program.is_file());
    if found.is_none() {
        let required = std::env::var_os("METRON_REQUIRE_BROWSER").is_some_and(|v| v == "1");
        assert!(!required, "a browser is required: run scripts/install-browser.sh");
        println!("not tested, for want of a browser");
    }
    found
}

/// Opens a page with nothing of this machine's own but the page; `None` for want of a browser.
fn render(html: &str) -> Option<Rendered> {
    let browser = browser()?;
    let dir = tempfile::tempdir().expect("a directory for the test");
    let place = |name: &str| dir.path().join(name);
    fs::write(place("report.html"), html).expect("the disk has room");
    wait(open(&browser, dir.path()));
    let read = |name: &str| {
        let bytes = fs::read(place(name)).expect("the browser wrote it");
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let console = |line: &&str| line.contains(":CONSOLE");
    Some(Rendered {
        document: read("document"),
        console: read("log").lines().filter(console).map(ToOwned::to_owned).collect(),
        requests: requests(&read("net.json")),
    })
}

/// Starts a browser, a process group of its own, on the directory's page.
fn open(browser: &Path, dir: &Path) -> Child {
    let output = |name: &str| Stdio::from(File::create(dir.join(name)).expect("the disk has room"));
    Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .arg(format!("--log-net-log={}", dir.join("net.json").display()))
        .args(["--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("file://{}", dir.join("report.html").display()))
        .stdin(Stdio::null())
        .stdout(output("document"))
        .stderr(output("log"))
        .process_group(0)
        .spawn()
        .expect("the browser starts")
}

/// Waits for a browser, at most a minute, and ends what is left of its processes.
fn wait(mut browser: Child) {
    let pause = Duration::from_millis(50);
    let status = (0..60_000 / pause.as_millis()).find_map(|_| {
        std::thread::sleep(pause);
        browser.try_wait().expect("the browser can be waited for")
    });
    let group = i32::try_from(browser.id()).ok().and_then(Pid::from_raw);
    // An error: all of them have ended.
    let _ = kill_process_group(group.expect("a process has an id"), Signal::KILL);
    let _ = browser.wait();
    let status = status.expect("the browser ends within a minute");
    assert!(status.success(), "the browser ended with {status}");
}

/// The addresses that pages asked for, from a net log. What the browser asks for itself has no
/// origin.
fn requests(net_log: &str) -> Vec<String> {
    let log: Value = serde_json::from_str(net_log).expect("the net log is JSON");
    let started = &log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"];
    assert!(started.is_number(), "the net log names its events");
    let events = log["events"].as_array().expect("the net log has events");
    events
        .iter()
        .filter(|event| event["type"] == *started)
        .map(|event| &event["params"])
        .filter(|params| params["initiator"] != "not an origin")
        .filter_map(|params| params["url"].as_str())
        .map(ToOwned::to_owned)
        .collect()
}
