//! Names of models, files and people, as parts of texts in other languages: whatever is in them, they stay names.

/// A string in double quotes that YAML 1.1, YAML 1.2 and Python read alike, on one line.
pub fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            ' '..='~' | 'À'..='ÿ' => out.push(c),
            '\0'..='\u{ffff}' => out += &format!("\\u{:04x}", u32::from(c)),
            _ => out += &format!("\\U{:08x}", u32::from(c)),
        }
    }
    out + "\""
}

/// A stretch of text within a paragraph or a table cell of Markdown (CommonMark 0.31, sections 2.4 and 2.5).
pub fn markdown(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '&' => out += "&amp;",
            '\u{2028}' | '\u{2029}' => out.push(' '),
            c if c.is_control() => out.push(' '),
            c if c.is_ascii_punctuation() && !"/.,-".contains(c) => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

/// One word of a POSIX shell's command.
pub fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a: \"b\"\n---\n<script>alert('1')</script> `x` |*_[y](z)\u{2028}\u{7f}\u{85}😀\\ñ # c";

    #[test]
    fn hostile_names_stay_on_one_line_and_mean_themselves() {
        let yaml = quoted(HOSTILE);
        assert_eq!(
            yaml,
            r##""a: \"b\"\u000a---\u000a<script>alert('1')</script> `x` |*_[y](z)\u2028\u007f\u0085\U0001f600\\ñ # c""##
        );
        let without = HOSTILE.replace('😀', "");
        assert_eq!(serde_json::from_str::<String>(&quoted(&without)).unwrap(), without);
        let text = markdown(HOSTILE);
        assert_eq!(
            text,
            r"a\: \&quot;".replace(r"\&quot;", "\\\"")
                + r#"b\" --- &lt;script&gt;alert\(\'1\'\)&lt;/script&gt; \`x\` \|\*\_\[y\]\(z\)   😀\\ñ \# c"#
        );
        assert_eq!(markdown("dccuchile/bert-base-spanish-wwm-uncased"), "dccuchile/bert-base-spanish-wwm-uncased");
    }

    #[test]
    fn words_of_a_shell_are_quoted_where_they_have_to_be() {
        assert_eq!(shell("/out/themo-1.0"), "/out/themo-1.0");
        assert_eq!(shell("it's $(x)"), r"'it'\''s $(x)'");
        assert_eq!(shell(""), "''");
    }
}
