//! Close codes (RFC 6455, section 7.4.1). What they mean is in [Close codes](crate::protocol#close-codes), what
//! they make the SDKs do in [Refused or disconnected](crate::protocol#refused-or-disconnected); which
//! transport sends which, and when, is with the transports and in `session`.

/// Ends a Go plugin for good.
pub(crate) const NORMAL: u16 = 1000;
pub(crate) const PROTOCOL_ERROR: u16 = 1002;
/// Never on a wire: the connection ended without a close.
pub(crate) const ABNORMAL: u16 = 1006;
pub(crate) const NOT_UTF8: u16 = 1007;
/// Tells the peer to go away for good.
pub(crate) const POLICY_VIOLATION: u16 = 1008;
pub(crate) const TOO_LARGE: u16 = 1009;
/// Tells the peer to come back.
pub(crate) const RESTART: u16 = 1012;
/// Sent to a peer that asks faster than it reads the answers. It may come back: 1008, which means a
/// violation of policy, would end the SDKs' external plugins for good.
pub(crate) const TRY_AGAIN_LATER: u16 = 1013;
