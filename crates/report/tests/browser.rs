//! The page in a real browser. Without one the test says so and passes, unless
//! `METRON_REQUIRE_BROWSER=1`; `scripts/install-browser.sh` installs one.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::with_report;

#[expect(clippy::print_stdout, reason = "what was not tested is said")]
fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|program| program.exists());
    if found.is_none() {
        let required = std::env::var_os("METRON_REQUIRE_BROWSER").is_some_and(|v| v == "1");
        assert!(!required, "a browser is required: run scripts/install-browser.sh");
        println!("not tested, for want of a browser");
    }
    found
}

/// Opens a page and prints its document, with nothing of this machine's own but the page.
fn open(browser: &Path, page: &Path, profile: &Path) -> Output {
    Command::new("timeout")
        .arg("60")
        .arg(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--virtual-time-budget=2000", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("the browser starts")
}

fn check(html: &str, judge: impl FnOnce(&str, &str)) {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().expect("a directory for the test");
    let page = dir.path().join("report.html");
    std::fs::write(&page, html).expect("the disk has room");
    let output = open(&browser, &page, &dir.path().join("profile"));
    let (document, log) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    judge(&document, &log);
}

#[test]
fn the_page_renders_its_figures_without_a_complaint() {
    let html = with_report(|report| report.to_html().expect("the template is whole"));
    check(&html, |document, log| {
        // Two streams, three distributions, two timelines.
        assert_eq!(document.matches("<svg").count(), 7, "{document}");
        assert!(document.contains("&lt;b&gt;mine&lt;/b&gt;"), "a label is shown, not run");
        assert!(!log.contains("CONSOLE"), "{log}");
    });
}

/// The page forbids itself any request: a picture from elsewhere is refused, and the refusal shows
/// in the log that the test above looks at.
#[test]
fn the_page_forbids_itself_the_network() {
    let html = with_report(|report| report.to_html().expect("the template is whole"));
    let reaching = html.replace("</body>", "<img src=\"https://example.invalid/a.png\"></body>");
    check(&reaching, |_, log| {
        assert!(log.contains("CONSOLE") && log.contains("Content Security Policy"), "{log}");
    });
}
