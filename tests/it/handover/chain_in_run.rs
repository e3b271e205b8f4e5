//! The same within a `run`, whose command hands over to a child each time: `chain.rs`.

use incumbent::Store;

use crate::handover::Owns;
use crate::handover::chain::{Contender, DIES_WITHIN_US};
use crate::handover::child::both;
use crate::support::{LIMIT, Process, Random, Sandbox, ask, eventually, rounds, told, wait_ended};

/// A run with a command that has a lock.
struct Chain {
    run: Process,
    owns: Owns,
    fence: String,
}

impl Chain {
    fn begin(sandbox: &Sandbox) -> Self {
        let mut run = sandbox.run_of_gateway(&["--lock", "token=chat", "--wait=1min"]);
        let owns = Owns::parse(&told(&mut run));
        let fence = ask(&mut run, "lock chat");
        Self { run, owns, fence }
    }

    fn hand_over(&mut self) {
        self.run.say("hand over 60000 adopts");
        let (_, next) = both(&mut self.run);
        assert!(wait_ended(self.owns.pid, LIMIT), "its work is done");
        assert_eq!((next.how.as_str(), next.instance), ("run", self.owns.instance));
        self.owns = next;
        assert_eq!(ask(&mut self.run, "verify"), "Held");
        assert_eq!(ask(&mut self.run, "lock chat"), self.fence, "it is one incarnation");
    }

    /// The successor is killed at some moment. Whether the command is the one before; if not, the
    /// successor was it, and the run has ended with it.
    fn hand_over_to_the_dying(&mut self, after_us: u64) -> bool {
        self.run.say(&format!("hand over 60000 dies {after_us}"));
        let mut said = told(&mut self.run);
        while said.starts_with("owns ") || said.starts_with("nothing ") {
            said = told(&mut self.run);
        }
        if said.starts_with("kept: ") {
            assert_eq!(ask(&mut self.run, "verify"), "Held");
            return true;
        }
        assert!(said.starts_with("handed over "), "{said}");
        let code = self.run.wait(LIMIT).code();
        assert_eq!(code, Some(128 + 9), "how the last one ended: {}", self.run.said_so_far());
        false
    }
}

/// Symptom: now and then the run ended a command that lived, with 255. It took one for ended that is
/// not its child yet, because the one before, which has handed over as well, still ends.
#[test]
fn the_office_of_a_run_is_never_free_while_its_command_hands_over() {
    let sandbox = Sandbox::new();
    let mut random = Random::seeded();
    let mut chain = Chain::begin(&sandbox);
    let contender = Contender::default();
    let store = Store::open(sandbox.db()).unwrap();
    let (mut kept, mut died) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| contender.contend(&store));
        // Also where the chain fails.
        let _over = contender.end_with();
        for round in 0..rounds(12, 100) {
            let before = contender.granted();
            let lives = if round % 2 == 0 {
                chain.hand_over();
                true
            } else {
                chain.hand_over_to_the_dying(random.below(DIES_WITHIN_US))
            };
            contender.looks();
            if lives {
                assert_eq!(contender.granted(), before, "it was free in round {round}");
                kept += 1;
                continue;
            }
            died += 1;
            eventually("a grant", LIMIT, || (contender.granted() > before).then_some(()));
            chain = Chain::begin(&sandbox);
        }
    });
    eprintln!("{kept} handovers with a living command, {died} commands that died");
    assert!(kept > 0);
    let status = sandbox.assert_status(0, "alive", "anchor_held");
    assert_eq!(
        (&status["pid"], &status["child_pid"]),
        (&chain.run.pid().into(), &chain.owns.pid.into())
    );
    chain.run.finish(LIMIT).assert_code(0);
}
