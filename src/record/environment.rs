//! `environment.json`: the build, the machine and the command of a run.

use std::path::Path;

use serde_json::{Value, json};

/// The build, the machine, the command, and what the caller names: device, operations, and the folder that the run was
/// started in, which its relative paths mean.
pub fn describe(device: &str, operations: &str, folder: Option<&Path>) -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": commit(),
        "command": std::env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect::<Vec<_>>(),
        "folder": folder.and_then(Path::to_str),
        "device": device,
        "operations": operations,
        "cpu": cpu(),
        "instructions": instructions(),
        "threads": rayon::current_num_threads(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// The commit that was built, with `-dirty` if files were changed since; see `src/build.rs`.
pub fn commit() -> Option<&'static str> {
    option_env!("THEMO_COMMIT").filter(|commit| !commit.is_empty())
}

/// The processor's name, where /proc/cpuinfo has it.
pub fn cpu() -> Option<String> {
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
        let described = describe("cpu", "fast", Some(Path::new("f")));
        assert_eq!(described["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!((&described["device"], &described["operations"]), (&json!("cpu"), &json!("fast")));
        assert_eq!(described["folder"], "f");
        assert!(described["threads"].as_u64().unwrap() > 0);
        assert!(described["commit"].is_null() || described["commit"].as_str().unwrap().len() >= 7);
    }
}
