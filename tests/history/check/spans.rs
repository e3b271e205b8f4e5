//! Stretches of time that are asked which of them touch another one.

use crate::log::Ns;

/// Each from, until, and whose it is.
#[derive(Debug, Default)]
pub struct Spans {
    /// By their begin.
    all: Vec<(Ns, Ns, usize)>,
    /// The latest end up to and with each.
    latest: Vec<Ns>,
}

impl Spans {
    pub fn of(mut all: Vec<(Ns, Ns, usize)>) -> Self {
        all.sort_unstable();
        let mut latest = Vec::with_capacity(all.len());
        for (_, until, _) in &all {
            let before = latest.last().copied().unwrap_or(0);
            latest.push(before.max(*until));
        }
        Self { all, latest }
    }

    /// The one that begins first of those that touch the time between the two, both included.
    pub fn first(&self, from: Ns, until: Ns) -> Option<usize> {
        self.touching(from, until).next()
    }

    /// All that touch it, in the order of their begin.
    pub fn touching(&self, from: Ns, until: Ns) -> impl Iterator<Item = usize> {
        let start = self.latest.partition_point(|latest| *latest < from);
        let end = self.all.partition_point(|(begin, _, _)| *begin <= until);
        let some = self.all.get(start..end).unwrap_or_default();
        some.iter().filter(move |(_, end, _)| *end >= from).map(|(_, _, index)| *index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_touches_is_found_and_nothing_else() {
        let spans = Spans::of(vec![(10, 20, 1), (0, 100, 0), (30, 40, 2)]);
        let touching = |from, until| spans.touching(from, until).collect::<Vec<_>>();
        assert_eq!(touching(20, 29), [0, 1]);
        assert_eq!(touching(21, 29), [0]);
        assert_eq!(touching(40, 50), [0, 2]);
        assert_eq!(touching(101, 200), [] as [usize; 0]);
        assert_eq!(spans.first(15, 35), Some(0));
        assert_eq!(Spans::default().first(0, 9), None);
    }
}
