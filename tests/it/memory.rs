//! What the program takes of the machine's memory.
#![cfg(target_os = "linux")]

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

const PARAMETERS: u64 = 134_515_008;
/// Keys and values of 30 layers, 3 heads, 64 wide, in f32.
const KV_BYTES_PER_POSITION: u64 = 2 * 30 * 3 * 64 * 4;
const POSITIONS: u64 = 512;

/// The most that `command` ever had resident, in bytes, and whether it succeeded.
fn peak_of(command: &mut Command) -> (u64, bool) {
    let mut child = command.stdout(Stdio::null()).spawn().expect("the program starts");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        if let Some(exit) = child.try_wait().expect("it is a child") {
            return (peak, exit.success());
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0) << 10);
        sleep(Duration::from_millis(5));
    }
}

/// The file's tensors pass through f32 on their way into the kernel's layout, one after another.
#[test]
#[expect(clippy::print_stdout, reason = "what was not tested is said")]
fn loading_peaks_at_a_quarter_above_the_weights_and_the_kv_pool() {
    // 8 bits and an f32 for each 32 of them.
    for (dtype, bits) in [("q8_0", 9), ("bf16", 16)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_metron"));
        command.args(["generate", "--model", "smollm2-135m-instruct", "--device", "cpu"]);
        command.args(["--prompt", "Hello", "--max-tokens", "8", "--ignore-eos"]);
        command.args(["--dtype", dtype, "--kv-blocks", &(POSITIONS / 16).to_string()]);
        let (peak, succeeded) = peak_of(&mut command);
        if !succeeded {
            let required = std::env::var_os("METRON_REQUIRE_WEIGHTS").is_some_and(|v| v == "1");
            assert!(!required, "weights are required");
            println!("not tested, for want of weights");
            return;
        }
        let needed = PARAMETERS * bits / 8 + POSITIONS * KV_BYTES_PER_POSITION;
        let ratio = peak as f64 / needed as f64;
        assert!(ratio <= 1.25, "{dtype}: {ratio:.2} times {needed} bytes");
        assert!(ratio > 0.8, "{dtype}: a peak of {peak} bytes is no model");
    }
}
