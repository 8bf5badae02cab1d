//! The variables by which a host tells a plugin where it is
//! ([Connection URL](crate::protocol#connection-url)).

/// The URL that a plugin connects to over WebSocket.
pub(crate) const URL_VARIABLE: &str = "STORYDEN_RPC_URL";
/// `stdio` for a plugin that talks over its standard input and output.
pub(crate) const TRANSPORT_VARIABLE: &str = "PLUGIN_RUNNER_TRANSPORT";
/// The directory for the plugin's own files, which survives updates.
pub(crate) const DATA_VARIABLE: &str = "PLUGIN_DATA_DIR";
