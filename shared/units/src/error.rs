//! What cannot be said in a unit file.

/// Why a text is no unit file, or a setting cannot stand in one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A setting stands before the first section.
    #[error("line {line}: a setting before the first section")]
    NoSection {
        /// Counted from 1.
        line: usize,
    },
    /// A line is neither section, setting nor comment.
    #[error("line {line}: expected [Section], Key=Value or a comment, found `{text}`")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// What stands there.
        text: String,
    },
    /// A name that no section has.
    #[error("`{name}` is no name of a section")]
    Section {
        /// The name.
        name: String,
    },
    /// A name that no setting has.
    #[error("`{key}` is no name of a setting")]
    Key {
        /// The name.
        key: String,
    },
    /// A value that would be read as something else.
    #[error("the value of {key} {reason}")]
    Value {
        /// Of which setting.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}

/// Why words cannot be written, or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// No word can hold it.
    #[error("a word holds a NUL")]
    Nul,
    /// Nothing to run.
    #[error("a command has no words")]
    Empty,
    /// The program is not named by its whole path, or its name begins with a sign that means something.
    #[error("`{program}` is no absolute path of a program")]
    Program {
        /// The first word.
        program: String,
    },
    /// A quote without its end.
    #[error("a quote is not closed")]
    Unclosed,
    /// A closing quote in the middle of a word.
    #[error("text follows a closing quote without a space")]
    Glued,
    /// A backslash before something that has no meaning after it.
    #[error("`\\{escape}` means nothing")]
    Escape {
        /// What follows the backslash.
        escape: String,
    },
    /// The service manager would put something in its place.
    #[error("`{text}` is replaced by the service manager")]
    Expanded {
        /// The specifier or variable.
        text: String,
    },
}
