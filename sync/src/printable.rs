//! Text of strangers, as it may stand in a log or on a terminal: what a node or a miner says must not move the cursor, turn the
//! direction of what follows it, or fill the screen.

/// The first `chars_max` characters that print, on one line.
pub(crate) fn printable(text: &str, chars_max: usize) -> String {
    let lines = text.chars().map(|c| if matches!(c, '\n' | '\t') { ' ' } else { c });
    let shown = lines.filter(|c| !c.is_control() && !is_hidden(*c));
    shown.take(chars_max).collect()
}

/// Line and paragraph separators, marks of direction, and what has no width: Unicode does not count them as controls.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_moves_nothing_and_ends() {
        assert_eq!(printable("cess\u{1b}[2J\nok\u{9b}", 99), "cess[2J ok");
        assert_eq!(printable("a\u{202e}b\u{200b}\u{2066}", 99), "ab");
        assert_eq!(printable("żółw 12", 99), "żółw 12");
        assert_eq!(printable(&"x".repeat(500), 7), "xxxxxxx");
    }
}
