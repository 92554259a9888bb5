//! A model's thinking, which some endpoints leave in the answer, and which is not for the person.

/// Names of the tags that models put around their thinking.
const NAMES: [&str; 10] = [
    "thinking",
    "thoughts",
    "thought",
    "think",
    "reasoning",
    "reflection",
    "scratchpad",
    "analysis",
    "inner_monologue",
    "seed:think",
];
/// Other marks around it.
const PAIRS: [(&str, &str); 4] = [
    ("[think]", "[/think]"),
    ("\u{25c1}think\u{25b7}", "\u{25c1}/think\u{25b7}"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
];
/// What stands around the answer itself, where a model marks that as well.
const AROUND_ANSWER: [&str; 6] = [
    "<|start|>assistant",
    "<|channel|>final<|message|>",
    "<|begin_of_solution|>",
    "<|end_of_solution|>",
    "<|return|>",
    "<|im_end|>",
];
/// Bytes that the attributes of a tag may take.
const ATTRIBUTES_MAX: usize = 64;

/// What a mark does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// Opens thinking of a kind.
    Open(usize),
    /// Closes it.
    Close(usize),
    AroundAnswer,
}

/// An answer without the thinking, in one pass.
///
/// What was never closed goes to the end, for the answer was cut in it; what was closed and never opened goes from
/// the beginning, for some prompts open it themselves.
pub fn removed(answer: &str) -> String {
    let mut out = String::with_capacity(answer.len());
    let (mut at, mut open) = (0, None);
    for (start, _) in answer.match_indices(['<', '[', '\u{25c1}']) {
        if start < at {
            continue;
        }
        let rest = answer.get(start..).unwrap_or_default();
        let Some((mark, length)) = mark_at(rest) else {
            continue;
        };
        let before = answer.get(at..start).unwrap_or_default();
        match (mark, open) {
            (Mark::Open(kind), None) => {
                out.push_str(before);
                open = Some(kind);
            }
            (Mark::Close(_), None) => out.clear(),
            (Mark::Close(kind), Some(opened)) if kind == opened => open = None,
            (Mark::AroundAnswer, None) => out.push_str(before),
            _ => continue,
        }
        at = start + length;
    }
    if open.is_none() {
        out.push_str(answer.get(at..).unwrap_or_default());
    }
    out.trim().to_owned()
}

/// The mark that a text begins with, and its bytes.
fn mark_at(text: &str) -> Option<(Mark, usize)> {
    let begins = |mark: &str| {
        text.get(..mark.len())
            .is_some_and(|head| head.eq_ignore_ascii_case(mark))
    };
    if let Some(mark) = AROUND_ANSWER.iter().find(|mark| begins(mark)) {
        return Some((Mark::AroundAnswer, mark.len()));
    }
    for (kind, (open, close)) in PAIRS.iter().enumerate() {
        if begins(open) {
            return Some((Mark::Open(kind), open.len()));
        }
        if begins(close) {
            return Some((Mark::Close(kind), close.len()));
        }
    }
    let (name, closes) = match text.strip_prefix("</") {
        Some(name) => (name, true),
        None => (text.strip_prefix('<')?, false),
    };
    NAMES.iter().enumerate().find_map(|(at, known)| {
        let kind = PAIRS.len() + at;
        let named = name.get(..known.len())?.eq_ignore_ascii_case(known);
        let rest = name.get(known.len()..).filter(|_| named)?;
        let end = rest.find(['>', '<', '\n'])?;
        let is_tag = rest.starts_with(['>', ' ', '/'])
            && end <= ATTRIBUTES_MAX
            && rest.get(end..)?.starts_with('>');
        let mark = if closes {
            Mark::Close(kind)
        } else {
            Mark::Open(kind)
        };
        let length = text.len() - rest.len() + end + 1;
        is_tag.then_some((mark, length))
    })
}

#[cfg(test)]
mod tests {
    use super::removed;

    #[test]
    fn the_answer_stays_and_the_thinking_goes() {
        for (answer, wanted) in [
            ("Hello", "Hello"),
            ("<think>\nThe user greets.\n</think>\n\nHello", "Hello"),
            ("<THINK>x</Think> Hello", "Hello"),
            ("<thinking type=\"deep\">x</thinking>Hello", "Hello"),
            (
                "<reasoning>x</reasoning>Hello <think>y</think>there",
                "Hello there",
            ),
            ("The user greets.\n</think>\nHello", "Hello"),
            ("Hello<think>and now I was cut", "Hello"),
            ("<think>cut", ""),
            ("<think>they may write <think> here</think>Hello", "Hello"),
            ("<think>a<think>b</think>c</think>Hello", "Hello"),
            ("<think>in <analysis>x</think>Hello", "Hello"),
            ("<think></think>", ""),
            ("[THINK]x[/THINK]Hello", "Hello"),
            ("\u{25c1}think\u{25b7}x\u{25c1}/think\u{25b7}Hello", "Hello"),
            (
                "<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>Hello<|return|>",
                "Hello",
            ),
            (
                "I think <b>so</b>, 3 < 4 and <thinkers> agree",
                "I think <b>so</b>, 3 < 4 and <thinkers> agree",
            ),
        ] {
            assert_eq!(removed(answer), wanted, "{answer:?}");
        }
    }

    #[test]
    fn a_hostile_answer_takes_one_pass() {
        assert_eq!(removed(&"<think>".repeat(40_000)), "");
        assert_eq!(removed(&"</think>".repeat(40_000)), "");
        assert_eq!(
            removed(&"<thinking ".repeat(30_000)),
            "<thinking ".repeat(30_000).trim()
        );
    }
}
