//! Storyden's event names.
//!
//! The set of events is open: an embedder defines events of its own and plugins name them in their
//! manifests. Here are only the names that Storyden's SDKs know, because they drop an event with any
//! other name without an answer ([Events](crate::protocol#events)). The form of
//! an event on the wire is [`Event`](super::method::Event).

/// The names of Storyden's events, the only ones that its SDKs can decode.
pub const STORYDEN_EVENTS: [&str; 42] = [
    "EventThreadPublished",
    "EventThreadUnpublished",
    "EventThreadUpdated",
    "EventThreadDeleted",
    "EventThreadReplyCreated",
    "EventThreadReplyDeleted",
    "EventThreadReplyUpdated",
    "EventThreadReplyPublished",
    "EventThreadReplyUnpublished",
    "EventPostLiked",
    "EventPostUnliked",
    "EventPostReacted",
    "EventPostUnreacted",
    "EventCategoryUpdated",
    "EventCategoryDeleted",
    "EventMemberMentioned",
    "EventNodeCreated",
    "EventNodeUpdated",
    "EventNodeDeleted",
    "EventNodePublished",
    "EventNodeSubmittedForReview",
    "EventNodeUnpublished",
    "EventNodeVersionDraftCreated",
    "EventNodeVersionDraftUpdated",
    "EventNodeVersionDraftDeleted",
    "EventNodeVersionDraftApplied",
    "EventAccountCreated",
    "EventAccountUpdated",
    "EventAccountSuspended",
    "EventAccountUnsuspended",
    "EventModerationNoteCreated",
    "EventModerationNoteDeleted",
    "EventAccountWarned",
    "EventAccountWarningUpdated",
    "EventAccountWarningDeleted",
    "EventReportCreated",
    "EventReportUpdated",
    "EventActivityCreated",
    "EventActivityUpdated",
    "EventActivityDeleted",
    "EventActivityPublished",
    "EventSettingsUpdated",
];

/// Whether this is one of Storyden's events, the only ones that its SDKs can decode.
pub(super) fn is_storyden_event(name: &str) -> bool {
    STORYDEN_EVENTS.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_exact() {
        let distinct: HashSet<_> = STORYDEN_EVENTS.iter().collect();
        assert_eq!(distinct.len(), 42);
        assert!(is_storyden_event("EventThreadReplyCreated"));
        assert!(is_storyden_event("EventSettingsUpdated"));
        assert!(!is_storyden_event("eventsettingsupdated"));
        assert!(!is_storyden_event("rpc.EventSettingsUpdated"));
        assert!(!is_storyden_event(""));
    }
}
