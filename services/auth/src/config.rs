//! Settings of accounts and sign-in.

use std::time::Duration;

use camino::Utf8PathBuf;
use nimbus_config::seconds_or_text;

/// Accounts and sign-in. Flag over environment over file over default.
#[derive(Clone, Debug, clap::Args)]
pub struct AuthConfig {
    /// How long a browser stays signed in, from sign-in on.
    #[arg(id = "auth_session_lifetime", long = "session-lifetime", env = "NIMBUS_SESSION_LIFETIME_SECONDS", value_name = "TIME",
          default_value = "7d", value_parser = seconds_or_text)]
    pub session_lifetime: Duration,

    /// How many attempts to sign in or register one address may make at once; 0 turns the limit off.
    #[arg(
        id = "auth_login_burst",
        long = "login-burst",
        env = "NIMBUS_LOGIN_BURST",
        value_name = "COUNT",
        default_value_t = 60
    )]
    pub login_burst: u32,

    /// How long it takes until an address that used up its attempts may make one more.
    #[arg(id = "auth_login_refill", long = "login-refill", env = "NIMBUS_LOGIN_REFILL_SECONDS", value_name = "TIME",
          default_value = "1", value_parser = seconds_or_text)]
    pub login_refill: Duration,

    /// File with the token that opens every tenant, made with the first start
    /// [default with start and dev: $XDG_DATA_HOME/nimbus/auth/token].
    #[arg(
        id = "auth_admin_token_file",
        long = "admin-token-file",
        env = "NIMBUS_ADMIN_TOKEN_FILE",
        value_name = "FILE"
    )]
    pub admin_token_file: Option<Utf8PathBuf>,
}

/// Why settings cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthConfigError {
    /// Sessions that never begin.
    #[error("the lifetime of a session has to be at least a minute, not {} s", .0.as_secs())]
    SessionLifetime(Duration),
    /// A bucket that is never filled.
    #[error("the time to make one more attempt has to be more than zero")]
    LoginRefill,
}

impl AuthConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// When sessions would live less than a minute, or attempts would never come back.
    pub fn validate(&self) -> Result<(), AuthConfigError> {
        if self.session_lifetime < Duration::from_secs(60) {
            return Err(AuthConfigError::SessionLifetime(self.session_lifetime));
        }
        if self.login_burst > 0 && self.login_refill.is_zero() {
            return Err(AuthConfigError::LoginRefill);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        auth: AuthConfig,
    }

    fn parse(flags: &[&str]) -> AuthConfig {
        Line::try_parse_from(std::iter::once("test").chain(flags.iter().copied()))
            .unwrap()
            .auth
    }

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_not() {
        let config = parse(&[]);
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(config.session_lifetime, Duration::from_secs(7 * 24 * 3600));
        assert!(parse(&["--session-lifetime", "0"]).validate().is_err());
        assert!(parse(&["--login-refill", "0"]).validate().is_err());
        assert_eq!(
            parse(&["--login-refill", "0", "--login-burst", "0"]).validate(),
            Ok(())
        );
    }
}
