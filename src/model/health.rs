//! The health of a backend, as a set of reasons against it.
//!
//! It is a set so that every bit has its own writers and no writer overwrites another. The health checks write
//! [`Health::CHECK_DOWN`], [`Health::TRIAL`], [`Health::JOINING`] and [`Health::UNRESOLVED`], and so does the control
//! plane when it adds a backend or changes its address; a worker whose connection attempt fails sets
//! [`Health::REFUSED`], one that connects clears it and [`Health::TRIAL`], and one that claims a trial clears the
//! latter.

bitflags::bitflags! {
    /// The reasons against a backend. Healthy is the empty set.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Health: u8 {
        /// The active check failed.
        const CHECK_DOWN = 1;
        /// A live connection could not be made.
        const REFUSED = 1 << 1;
        /// The name never resolved, so there is nowhere to connect to.
        const UNRESOLVED = 1 << 2;
        /// One live request may try a refused backend.
        const TRIAL = 1 << 3;
        /// The peer set added the backend, and its first check result is outstanding. Always with
        /// [`Health::CHECK_DOWN`].
        const JOINING = 1 << 4;
    }
}

impl Health {
    /// Whether nothing speaks against the backend.
    pub const fn is_healthy(self) -> bool {
        self.is_empty()
    }

    /// Whether its check or live traffic has found the backend unfit. One that is only unresolved is not down.
    pub const fn is_down(self) -> bool {
        self.intersects(Self::CHECK_DOWN.union(Self::REFUSED))
    }

    /// Whether live traffic was refused.
    pub const fn is_refused(self) -> bool {
        self.contains(Self::REFUSED)
    }

    /// Whether there is no address to connect to.
    pub const fn is_unresolved(self) -> bool {
        self.contains(Self::UNRESOLVED)
    }

    /// Whether the first check result of a new backend is outstanding.
    pub const fn is_joining(self) -> bool {
        self.contains(Self::JOINING)
    }

    /// Whether a live request may claim a trial, and could connect.
    pub const fn offers_trial(self) -> bool {
        self.contains(Self::TRIAL) && !self.contains(Self::UNRESOLVED)
    }
}
