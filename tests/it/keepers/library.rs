//! Records for other processes by the library: what a binding for another language stands on.

use incumbent::helper::HelperProgram;
use incumbent::keeper::{Anchoring, KeptClaim, KeptProcess, KeptRelease, KeptStanding, Whom};
use incumbent::lock::AcquireOptions;
use incumbent::{Acquire, Kind, LockName, LockRequest, Office, ProfileName, Store};
use rustix::process::Signal;

use crate::support::{
    BINARY, LIMIT, Process, Sandbox, ask, eventually, kill, obey_orders, plays, role_db, skipped,
    sleeper, test_name, wait_ended,
};

const BINDING: &str = "binding";

const SCOPE: &str = "telegram-bot-token";

fn failed(error: &incumbent::Error) -> String {
    format!("{:?}: {error}", error.kind())
}

fn answer(verb: &str, process: &KeptProcess, store: &Store) -> incumbent::Result<String> {
    let work = store.profile("default")?;
    let name = LockName::new(SCOPE, "a")?;
    let standing = |standing| match standing {
        KeptStanding::Held(lock) => format!("held {}", lock.fence),
        KeptStanding::NotHeld { why, .. } => why,
        _ => "?".to_owned(),
    };
    Ok(match verb {
        "claim" => match process.claim(&work, &Kind::default())? {
            KeptClaim::Granted { instance, evicted, .. } => {
                format!("granted {instance} {:?}", evicted.map(|it| it.instance.as_i64()))
            }
            KeptClaim::Already { pid, .. } => format!("already {pid:?}"),
            KeptClaim::Held(holder) => format!("held by {:?}", holder.pid),
            _ => "?".to_owned(),
        },
        "release" => match process.release(&Office::default())? {
            KeptRelease::Released(instance) => format!("released {instance}"),
            KeptRelease::NotHeld { why, .. } => why,
            _ => "?".to_owned(),
        },
        "acquire" => {
            let request = LockRequest::new(SCOPE, "a")?;
            match process.acquire(&ProfileName::default(), &request, &AcquireOptions::new())? {
                Acquire::Granted(granted) => format!("granted {}", granted.lock.fence),
                Acquire::Held(holder) => format!("held by {:?}", holder.pid),
            }
        }
        "verify" => standing(process.verify_lock(&name, None)?),
        "renew" => standing(process.renew_lock(&name, None)?),
        "unlock" => standing(process.release_lock(&name, None)?),
        "records" => process.records()?.len().to_string(),
        _ => panic!("{verb}"),
    })
}

/// Plays a binding: `VERB PID`, `alone PID` (a claim without a keeper), `helper PROGRAM ARGUMENT...`.
#[test]
fn role_of_a_binding() {
    if !plays(BINDING) {
        return;
    }
    let store = Store::open(role_db()).unwrap();
    obey_orders(|order| {
        let words: Vec<&str> = order.split(' ').collect();
        match words.as_slice() {
            ["helper", program, arguments @ ..] => {
                let helper = HelperProgram::new(program);
                let helper =
                    arguments.iter().fold(helper, |it, word| it.argument(word.replace('~', " ")));
                helper.use_from_now_on();
                "chosen".to_owned()
            }
            [verb, pid] => {
                let process = store.kept(Whom::Process(pid.parse().unwrap()));
                let (verb, process) = match *verb {
                    "alone" => ("claim", process.anchoring(Anchoring::None)),
                    verb => (verb, process),
                };
                answer(verb, &process, &store).unwrap_or_else(|error| failed(&error))
            }
            _ => panic!("{order}"),
        }
    });
}

fn binding(sandbox: &Sandbox) -> Process {
    sandbox.role(test_name!(role_of_a_binding), BINDING)
}

fn pairs(sandbox: &Sandbox) -> (usize, usize) {
    (sandbox.keepers().len(), sandbox.second_keepers().len())
}

/// A record outlives the program that asked for it, and ends with the process that it is about.
#[test]
fn a_record_lives_with_its_process_and_not_with_who_asked() {
    let sandbox = Sandbox::new();
    let (mut process, mut binding) = (sleeper(&sandbox), binding(&sandbox));
    let pid = process.pid();
    assert!(ask(&mut binding, &format!("claim {pid}")).starts_with("granted"));
    assert_eq!(ask(&mut binding, &format!("claim {pid}")), format!("already Some({pid})"));
    eventually("two keepers", LIMIT, || (pairs(&sandbox) == (1, 1)).then_some(()));
    // The same keeper for what else is wanted.
    assert!(ask(&mut binding, &format!("acquire {pid}")).starts_with("granted"));
    assert!(ask(&mut binding, &format!("verify {pid}")).starts_with("held"));
    assert!(ask(&mut binding, &format!("renew {pid}")).starts_with("held"));
    assert_eq!(pairs(&sandbox), (1, 1));
    assert_eq!(ask(&mut binding, &format!("records {pid}")), "2");

    binding.kill();
    assert_eq!(sandbox.assert_status(0, "alive", "anchor_held")["pid"], pid);
    process.kill();
    assert_eq!(sandbox.status().1["running"], false);
    sandbox.cli(["run", "--no-backoff", "--", "true"]).assert_code(0);
    eventually("no keepers", LIMIT, || (pairs(&sandbox) == (0, 0)).then_some(()));
}

/// Slots are recorded for a process as often as it asks, each with a fence of its own.
#[test]
fn a_process_has_as_many_slots_as_it_asked_for() {
    let sandbox = Sandbox::new();
    let process = sleeper(&sandbox);
    let store = Store::open(sandbox.db()).unwrap();
    let kept = store.kept(Whom::Process(process.pid())).anchoring(Anchoring::None);
    let request = LockRequest::new(SCOPE, "a").unwrap();
    let acquire = |request: &LockRequest| {
        kept.acquire(&ProfileName::default(), request, &AcquireOptions::new()).unwrap()
    };
    let two = request.clone().slots(2).unwrap();
    let grants = [(); 2].map(|()| match acquire(&two) {
        Acquire::Granted(granted) => granted.lock,
        Acquire::Held(holder) => panic!("{holder}"),
    });
    assert_eq!(grants.each_ref().map(|lock| lock.slot.unwrap().number), [0, 1]);
    for refused in [&two, &request, &request.clone().exclusive()] {
        let Acquire::Held(holder) = acquire(refused) else { panic!("granted: {refused:?}") };
        assert_eq!((holder.pid, holder.others.len()), (Some(process.pid()), 1), "{holder}");
    }

    let (pid, fence) = (process.pid().to_string(), grants[1].fence.to_string());
    let verb =
        |name: &'static str| ["lock", name, SCOPE, "a", "--pid", &pid[..], "--fence", &fence[..]];
    let held = sandbox.cli(verb("verify")).assert_code(0);
    assert!(held.out.contains(", slot 1 of 2: held, fence "), "{held:#?}");
    let (code, released) = sandbox.json(verb("release"));
    assert_eq!((code, released["slot"]["number"].as_u64()), (0, Some(1)), "{released:#}");
    sandbox.cli(verb("verify")).assert_code(1);
    let left = kept.verify_lock(request.name(), None).unwrap();
    assert!(matches!(&left, KeptStanding::Held(lock) if *lock == grants[0]), "{left:?}");
}

/// Who asks for another's office is told of its holder, and no keeper is started for a "no".
#[test]
fn a_refusal_starts_no_keeper() {
    let sandbox = Sandbox::new();
    let mut run = sandbox.hold(&[]);
    let (mut process, mut binding) = (sleeper(&sandbox), binding(&sandbox));
    let refused = ask(&mut binding, &format!("claim {}", process.pid()));
    assert_eq!(refused, format!("held by Some({})", run.pid()));
    assert_eq!(pairs(&sandbox), (0, 0));
    // Nor may anybody release what is not theirs.
    let kept = ask(&mut binding, &format!("release {}", process.pid()));
    assert!(kept.contains("only its owner releases it"), "{kept}");
    run.kill();
    let granted = ask(&mut binding, &format!("claim {}", process.pid()));
    let in_its_place = granted.starts_with("granted") && granted.contains(" Some(");
    assert!(in_its_place, "{granted}");
    process.kill();
}

#[test]
fn what_was_claimed_for_a_process_is_released_for_it() {
    let sandbox = Sandbox::new();
    let (process, mut binding) = (sleeper(&sandbox), binding(&sandbox));
    let pid = process.pid();
    for verb in ["claim", "alone"] {
        assert!(ask(&mut binding, &format!("{verb} {pid}")).starts_with("granted"), "{verb}");
        assert!(ask(&mut binding, &format!("release {pid}")).starts_with("released"), "{verb}");
    }
    let nobody = ask(&mut binding, &format!("release {pid}"));
    assert_eq!(nobody, "nobody holds default/gateway");
    assert!(ask(&mut binding, &format!("acquire {pid}")).starts_with("granted"));
    assert!(ask(&mut binding, &format!("unlock {pid}")).starts_with("held"));
    assert!(ask(&mut binding, &format!("verify {pid}")).starts_with("nobody holds"));
}

/// A binding for an interpreter has no program of its own: the interpreter, with the arguments that
/// lead to `helper::serve`, is the keeper, and the second one, which takes its place, is as well.
#[test]
fn an_interpreter_with_arguments_may_be_the_helper() {
    let sandbox = Sandbox::new();
    let (process, mut binding) = (sleeper(&sandbox), binding(&sandbox));
    let script = format!("exec~{BINARY}~\"$@\"");
    assert_eq!(ask(&mut binding, &format!("helper /bin/sh -c {script} sh")), "chosen");
    assert!(ask(&mut binding, &format!("claim {}", process.pid())).starts_with("granted"));
    eventually("two keepers", LIMIT, || (pairs(&sandbox) == (1, 1)).then_some(()));
    let first = sandbox.keepers()[0];
    kill(first, Signal::KILL);
    assert!(wait_ended(first, LIMIT));
    // The one that was left keeps its name.
    eventually("two again", LIMIT, || (pairs(&sandbox) == (0, 2)).then_some(()));
    sandbox.assert_status(0, "alive", "anchor_held");
}

/// What loads a program that is linked dynamically: it executes that as an interpreter a script.
fn loader() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut files = maps.lines().filter_map(|line| line.split_whitespace().nth(5));
    let is_loader =
        |path: &&str| path.rsplit('/').next().is_some_and(|name| name.starts_with("ld-"));
    files.find(is_loader).map(str::to_owned)
}

/// Symptom: the keeper of a binding was alone, and started twice a second what could not be the
/// second one. Cause: a keeper that is an interpreter takes that for its program, without the
/// arguments that lead to it. It is told them.
#[test]
fn an_interpreter_starts_the_second_keeper_as_it_was_started() {
    let Some(loader) = loader() else { return skipped("nothing has loaded this program") };
    let sandbox = Sandbox::new();
    let (mut process, mut binding) = (sleeper(&sandbox), binding(&sandbox));
    assert_eq!(ask(&mut binding, &format!("helper {loader} {BINARY}")), "chosen");
    assert!(ask(&mut binding, &format!("claim {}", process.pid())).starts_with("granted"));
    eventually("two keepers", LIMIT, || (pairs(&sandbox) == (1, 1)).then_some(()));
    let first = sandbox.keepers()[0];
    kill(first, Signal::KILL);
    assert!(wait_ended(first, LIMIT));
    eventually("two again", LIMIT, || (pairs(&sandbox) == (0, 2)).then_some(()));
    sandbox.assert_status(0, "alive", "anchor_held");
    process.kill();
    eventually("no keepers", LIMIT, || (pairs(&sandbox) == (0, 0)).then_some(()));
}

/// Symptom of a wrong program: a record that nobody keeps. It is an error that names the program.
#[test]
fn what_is_no_helper_is_named() {
    let sandbox = Sandbox::new();
    let (process, mut binding) = (sleeper(&sandbox), binding(&sandbox));
    let claim = format!("claim {}", process.pid());
    // It waits for the keeper in place of becoming it, and is the one that is known.
    let launcher = format!("/bin/sh -c {BINARY}~\"$@\";~exit~$? sh");
    for (program, words) in [
        ("/bin/true", "before it could report"),
        ("/nowhere", "cannot start"),
        (launcher.as_str(), "starts another process as the keeper"),
    ] {
        assert_eq!(ask(&mut binding, &format!("helper {program}")), "chosen");
        let program = program.split(' ').next().unwrap();
        let answer = ask(&mut binding, &claim);
        assert!(answer.contains(program) && answer.contains(words), "{answer}");
    }
    assert_eq!(sandbox.status().1["running"], false);

    let mut lonely = sandbox.role_command(test_name!(role_of_a_binding), BINDING);
    lonely.env("PATH", sandbox.path());
    let mut lonely = Process::start(lonely);
    let answer = ask(&mut lonely, &claim);
    assert!(answer.starts_with("InvalidInput") && answer.contains("helper::serve"), "{answer}");
    // It needs none for what needs no keeper.
    let alone = ask(&mut lonely, &claim.replace("claim", "alone"));
    assert!(alone.starts_with("granted"), "{alone}");
}

#[test]
fn a_process_that_has_ended_gets_no_record() {
    let sandbox = Sandbox::new();
    let mut process = sleeper(&sandbox);
    process.kill();
    let mut binding = binding(&sandbox);
    for verb in ["claim", "acquire"] {
        let answer = ask(&mut binding, &format!("{verb} {}", process.pid()));
        assert!(answer.starts_with("NotRunning"), "{answer}");
    }
}

/// Of a lock with slots each process has its own, by the name that all of them have.
#[test]
fn each_process_has_its_own_slot() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let request = LockRequest::new(SCOPE, "a").unwrap().slots(2).unwrap();
    let (name, profile) = (LockName::new(SCOPE, "a").unwrap(), ProfileName::default());
    let sleepers = [sleeper(&sandbox), sleeper(&sandbox), sleeper(&sandbox)];
    let [first, second, third] = sleepers
        .each_ref()
        .map(|sleeper| store.kept(Whom::Process(sleeper.pid())).anchoring(Anchoring::None));
    let acquire = |process: &KeptProcess| match process
        .acquire(&profile, &request, &AcquireOptions::new())
        .unwrap()
    {
        Acquire::Granted(granted) => Ok(granted.lock),
        Acquire::Held(holder) => Err(holder.others.len()),
    };
    let (one, two) = (acquire(&first).unwrap(), acquire(&second).unwrap());
    assert_eq!((one.slot.unwrap().number, two.slot.unwrap().number), (0, 1));
    assert_eq!(acquire(&third), Err(1), "one more holds it");
    let verify = |process: &KeptProcess, fence| match process.verify_lock(&name, fence).unwrap() {
        KeptStanding::Held(lock) => Some((lock.slot.unwrap().number, lock.fence)),
        _ => None,
    };
    assert_eq!(verify(&first, None), Some((0, one.fence)));
    assert_eq!(verify(&second, Some(two.fence)), Some((1, two.fence)));
    assert_eq!((verify(&second, Some(one.fence)), verify(&third, None)), (None, None));
    assert!(matches!(second.release_lock(&name, None).unwrap(), KeptStanding::Held(_)));
    assert_eq!((verify(&first, None), verify(&second, None)), (Some((0, one.fence)), None));
    assert_eq!(acquire(&third).unwrap().slot.unwrap().number, 1);
}
