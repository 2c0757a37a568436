//! Paths in variables of the environment, expanded as Python's huggingface_hub does it:
//! `os.path.expandvars(os.path.expanduser(path))` of Python 3's `posixpath`, and nothing more.

/// `~`, `~user`, `$NAME` and `${NAME}` in `path`. What is not known stays as it is.
pub(super) fn expand(path: &str, var: &dyn Fn(&str) -> Option<String>) -> String {
    expand_vars(&expand_user(path, var), var)
}

/// `~` and `~user` at the beginning.
fn expand_user(path: &str, var: &dyn Fn(&str) -> Option<String>) -> String {
    let Some(rest) = path.strip_prefix('~') else { return path.to_owned() };
    let (user, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some(home) = (if user.is_empty() { home(var) } else { home_of(user) }) else { return path.to_owned() };
    let expanded = format!("{}{rest}", home.trim_end_matches('/'));
    if expanded.is_empty() { "/".to_owned() } else { expanded }
}

/// The home folder of who runs themo.
pub(super) fn home(var: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let of_system = || std::env::home_dir().map(|home| home.to_string_lossy().into_owned());
    var("HOME").or_else(|| var("USERPROFILE")).or_else(of_system)
}

/// The home folder of another user, as `/etc/passwd` has it.
fn home_of(user: &str) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(user)).then(|| fields.nth(4).map(str::to_owned))?
    });
    if home.is_none() {
        tracing::warn!("/etc/passwd has no user `{user}`: a path that begins with ~{user} stays as it is");
    }
    home
}

/// `$NAME` and `${NAME}`, where there is a variable of that name; values are not looked through again.
fn expand_vars(path: &str, var: &dyn Fn(&str) -> Option<String>) -> String {
    let (mut done, mut rest) = (String::new(), path);
    while let Some(at) = rest.find('$') {
        let (before, found) = rest.split_at(at);
        let after = &found[1..];
        let plain = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let (name, length) = match after.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
            Some((name, _)) => (name, name.len() + 3),
            None => (&after[..plain], 1 + plain),
        };
        done += before;
        match var(name).filter(|_| length > 1) {
            Some(value) => done += &value,
            None => done += &found[..length],
        }
        rest = &found[length..];
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python 3.11 gives, from `tests/golden/expand.py`, which prints this table.
    const PYTHON: &[(&str, &str)] = &[
        ("", ""),
        ("/x", "/x"),
        ("~", "/home/ana"),
        ("~/", "/home/ana/"),
        ("~/x", "/home/ana/x"),
        ("~//x", "/home/ana//x"),
        ("x/~", "x/~"),
        (" ~/x", " ~/x"),
        ("~root", "/root"),
        ("~no-such-user/x", "~no-such-user/x"),
        ("$A", "/a"),
        ("${A}", "/a"),
        ("$A/x", "/a/x"),
        ("${A}x", "/ax"),
        ("$Ax", "$Ax"),
        ("$A-x", "/a-x"),
        ("$NONE/x", "$NONE/x"),
        ("${NONE}/x", "${NONE}/x"),
        ("$TWICE", "$A"),
        ("${TWICE}/x", "$A/x"),
        ("$EMPTY/x", "/x"),
        ("$", "$"),
        ("$$A", "$/a"),
        ("${", "${"),
        ("${A", "${A"),
        ("${}", "${}"),
        ("${}x$A", "${}x/a"),
        ("x$", "x$"),
        ("$ñ", "$ñ"),
        ("~$A", "~/a"),
        ("~/$A", "/home/ana//a"),
        ("$HOME/x", "/home/ana//x"),
        ("${with space}/x", "/s/x"),
        ("\\$A", "\\/a"),
        ("%A%", "%A%"),
        ("$A$A", "/a/a"),
        ("a$A${A}b", "a/a/ab"),
        ("~\\x", "~\\x"),
        ("${A${A}}", "${A${A}}"),
    ];

    #[test]
    fn paths_are_expanded_as_python_expands_them() {
        let var = |name: &str| match name {
            "HOME" => Some("/home/ana/".to_owned()),
            "A" => Some("/a".to_owned()),
            "TWICE" => Some("$A".to_owned()),
            "EMPTY" => Some(String::new()),
            "with space" => Some("/s".to_owned()),
            _ => None,
        };
        // (root's home is /root on Linux.)
        for (path, want) in PYTHON.iter().filter(|(path, _)| cfg!(target_os = "linux") || !path.starts_with("~root")) {
            assert_eq!(expand(path, &var), *want, "{path}");
        }
        let root = |name: &str| (name == "HOME").then(|| "/".to_owned());
        assert_eq!((expand("~", &root), expand("~/x", &root)), ("/".to_owned(), "/x".to_owned()));
    }
}
