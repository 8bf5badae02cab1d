//! `counters!`: a struct of plain counts and the atomics behind it, made from one table. What is
//! counted, and when, is where it happens.

/// Makes a struct of counts, and one of atomics with the same fields that gives a snapshot. The
/// snapshot may be off by what happens meanwhile.
macro_rules! counters {
    (
        $(#[$doc:meta])* $name:ident, $live:ident;
        $($(#[$field_doc:meta])* $field:ident,)+
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)+
        }

        #[derive(Debug, Default)]
        pub(crate) struct $live {
            $(pub(crate) $field: ::std::sync::atomic::AtomicU64,)+
        }

        impl $live {
            pub(crate) fn snapshot(&self) -> $name {
                use ::std::sync::atomic::Ordering;
                $name { $($field: self.$field.load(Ordering::Relaxed),)+ }
            }
        }
    };
}

pub(crate) use counters;
