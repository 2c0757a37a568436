//! `environment.json`: the build, the machine and the command of a run.

use std::path::Path;

use serde_json::{Value, json};

/// The build, the machine, the command, and the device and operations that the caller names.
pub fn describe(device: &str, operations: &str) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "command": std::env::args().collect::<Vec<_>>(),
        "device": device,
        "operations": operations,
        "cpu": cpu(),
        "instructions": instructions(),
        "threads": rayon::current_num_threads(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// The commit that `THEMO_COMMIT` named at build time, else the one checked out now where this was built.
fn commit() -> Option<String> {
    let git = Path::new(env!("CARGO_MANIFEST_DIR")).join(".git");
    let read = |name: &str| std::fs::read_to_string(git.join(name)).ok();
    let checked_out = || {
        let head = read("HEAD")?;
        let Some(branch) = head.trim().strip_prefix("ref: ") else { return Some(head.trim().to_owned()) };
        let packed = || {
            let all = read("packed-refs")?;
            all.lines().find_map(|line| Some(line.strip_suffix(branch)?.trim().to_owned()))
        };
        read(branch).map(|commit| commit.trim().to_owned()).or_else(packed)
    };
    option_env!("THEMO_COMMIT").map(str::to_owned).or_else(checked_out)
}

/// The processor's name, where /proc/cpuinfo has it.
fn cpu() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The widest vector instructions that the fast operations use here.
fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            return "AVX2";
        }
    }
    "none beyond the architecture's baseline"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_the_version_and_the_machine() {
        let described = describe("cpu", "fast");
        assert_eq!(described["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!((&described["device"], &described["operations"]), (&json!("cpu"), &json!("fast")));
        assert!(described["threads"].as_u64().unwrap() > 0);
        assert!(described["commit"].is_null() || described["commit"].as_str().unwrap().len() >= 7);
    }
}
