//! Which machine and commit figures belong to, and what a process used.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Clock ticks per second in `/proc/PID/stat`; fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// How often a running process is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

pub(crate) fn describe() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output();
        output.map_or(String::new(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let dirty = if git(&["status", "--porcelain"]).is_empty() { "" } else { " with changes" };
    let commit = git(&["rev-parse", "--short", "HEAD"]);
    format!("{cores} cores of {}, commit {commit}{dirty}", model.map_or("?", |(_, name)| name))
}

/// What a process used until it ended.
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mb: u64,
}

/// Waits for a process to end, looking at it now and then.
pub(crate) fn watch(mut child: Child) -> Usage {
    let begun = Instant::now();
    let (mut cpu_seconds, mut peak_mb) = (0.0, 0);
    loop {
        let id = child.id();
        if let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) {
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            let fields: Vec<f64> =
                after_name.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            // The state is a letter and drops out: user and system time are the 11th and 12th number then.
            if let [user, system] = fields[10..12] {
                cpu_seconds = (user + system) / TICKS_PER_SECOND;
            }
        }
        peak_mb = peak_mb.max(peak_of(id));
        if let Some(status) = child.try_wait().expect("the child is ours") {
            assert!(status.success(), "the program ended with {status}");
            return Usage { wall: begun.elapsed(), cpu_seconds, peak_mb };
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Peak resident size of a process, in MB.
fn peak_of(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1_024
}
