//! What a failing handler answers with.

use std::fmt;

use crate::error::{Error, RpcError};
use crate::text::Foreign;

/// Why a handler failed; becomes the error that the host is answered with.
///
/// Made with `?` or `into()` from any text and any error. It answers with code -32000 and the text
/// ([Error codes](crate::protocol#error-codes)), but for an [`RpcError`], which is answered as it is.
pub struct HandlerError(RpcError);

impl HandlerError {
    /// Returns an error with this code.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self(RpcError::new(code, message))
    }

    /// Returns the code it answers with.
    pub fn code(&self) -> i64 {
        self.0.code
    }

    /// Returns the text it answers with.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub(super) fn into_rpc(self) -> RpcError {
        self.0
    }
}

// Not an `Error` itself, because then this could not take every error.
impl<E> From<E> for HandlerError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn from(error: E) -> Self {
        let error: Box<dyn std::error::Error + Send + Sync> = error.into();
        if let Some(answer) = error.downcast_ref::<RpcError>() {
            return Self(answer.clone());
        }
        let message = match error.downcast_ref::<Error>() {
            // The crate's errors are in the host's words; here it is the host that answered.
            Some(Error::Rpc(answer)) => format!("the host answered with an error: {answer}"),
            _ => error.to_string(),
        };
        Self::new(RpcError::HANDLER_FAILED, message)
    }
}

impl fmt::Display for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Foreign::new(self.message()))
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn fails(with: impl Into<HandlerError>) -> (i64, String) {
        let error = with.into();
        (error.code(), error.message().to_owned())
    }

    #[test]
    fn any_text_and_any_error_will_do() {
        assert_eq!(fails("no"), (-32000, "no".to_owned()));
        assert_eq!(fails("no".to_owned()), (-32000, "no".to_owned()));
        assert_eq!(
            fails(io::Error::other("disk on fire")),
            (-32000, "disk on fire".to_owned())
        );
        assert_eq!(
            fails(Error::from(RpcError::new(-32601, "what?"))),
            (
                -32000,
                "the host answered with an error: what? (-32601)".to_owned()
            )
        );
    }

    #[test]
    fn a_code_of_its_own_is_kept() {
        assert_eq!(fails(RpcError::new(7, "no")), (7, "no".to_owned()));
        assert_eq!(fails(HandlerError::new(7, "no")), (7, "no".to_owned()));
    }
}
