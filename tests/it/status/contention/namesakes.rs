//! One platform's name in many profiles.

use incumbent::status::{Field, PlatformUpdate};
use incumbent::{ProfileName, StatusUpdate, Store};
use serde_json::json;

use super::{ROLE_TEST, claim_patiently, open, patiently, tell};
use crate::support::{Process, Sandbox, order, told_json};

/// Writes one platform 20 times, when told to.
pub fn write_one_platform() {
    let profile = order().unwrap();
    let store = open();
    let tenure = claim_patiently(&store, &profile);
    tell("\"ready\"");
    assert_eq!(order().as_deref(), Some("go"));
    for number in 1..=20 {
        let platform = PlatformUpdate::new("telegram")
            .state(if number == 20 { "connected" } else { "retrying" })
            .error_code(format!("{profile}-{number}"))
            .extra(json!({"profile": profile, "number": number}));
        let update = StatusUpdate::new().platform(platform);
        patiently(|| tenure.update_status(&update));
    }
    let report = store.profile(&profile).unwrap().status().unwrap();
    let seen: Vec<_> =
        report.platforms.iter().map(|it| json!([it.platform, it.error_code, it.extra])).collect();
    tell(&json!(seen).to_string());
    assert_eq!(order(), None);
}

/// FIELD-BUGS rows 59 and 64.
///
/// Symptom: of several writers' platform entries some disappeared; the failure of a second
/// profile's platform stood over the first one's "connected". Cause: read, change and write of one
/// document without a lock, under a key that was the platform alone. The key is (instance, profile,
/// platform), and a write is about one key.
#[test]
fn fifty_writers_of_one_platform_name_do_not_overwrite_each_other() {
    const WRITERS: usize = 50;
    let sandbox = Sandbox::new();
    let name = |number: usize| format!("p{number}");
    let mut writers: Vec<Process> =
        (0..WRITERS).map(|_| sandbox.role(ROLE_TEST, "namesake")).collect();
    for (number, writer) in writers.iter_mut().enumerate() {
        writer.say(&name(number));
    }
    for writer in &mut writers {
        assert_eq!(told_json(writer), "ready");
    }
    for writer in &mut writers {
        writer.say("go");
    }
    for (number, writer) in writers.iter_mut().enumerate() {
        let profile = name(number);
        let own = json!(["telegram", format!("{profile}-20"), {"profile": profile, "number": 20}]);
        assert_eq!(told_json(writer), json!([own]), "what {profile} sees of itself");
    }
    let connected = "SELECT count(*) FROM platform_status AS p JOIN instances AS i
        ON i.id = p.instance_id AND i.profile = p.profile
        WHERE p.platform = 'telegram' AND p.state = 'connected'
            AND p.error_code = p.profile || '-20'";
    assert_eq!(sandbox.number(connected), 50);
    assert_eq!(sandbox.number("SELECT count(*) FROM platform_status"), 50);
    let changes = "SELECT count(*) FROM events WHERE event = 'platform_changed'";
    assert_eq!(sandbox.number(changes), 50 * 20, "each write is an event of its own");
}

/// FIELD-BUGS row 64, within one process: a gateway that serves many profiles.
#[test]
fn a_served_profiles_failure_does_not_stand_over_the_servers_own_connection() {
    let sandbox = Sandbox::new();
    let store = Store::open(sandbox.db()).unwrap();
    let tenure = claim_patiently(&store, "main");
    let served: Vec<ProfileName> =
        (0..50).map(|number| ProfileName::new(format!("p{number}")).unwrap()).collect();
    let mut update = StatusUpdate::new()
        .serves(served.clone())
        .platform(PlatformUpdate::new("telegram").state("connected"));
    for profile in &served {
        let platform = PlatformUpdate::new("telegram")
            .of_profile(profile.clone())
            .state("fatal")
            .error_code(profile.as_str());
        update = update.platform(platform);
    }
    tenure.update_status(&update).unwrap();
    let of = |profile: &str| {
        let report = store.profile(profile).unwrap().status().unwrap();
        let [platform] = report.platforms.as_slice() else { panic!("{:?}", report.platforms) };
        (platform.state.clone(), platform.error_code.clone())
    };
    assert_eq!(of("main"), (Some("connected".to_owned()), None));
    for profile in &served {
        let expected = (Some("fatal".to_owned()), Some(profile.as_str().to_owned()));
        assert_eq!(of(profile.as_str()), expected);
    }
    // And one that heals touches no other.
    let healed = PlatformUpdate::new("telegram")
        .of_profile(served[7].clone())
        .state("connected")
        .error_code(Field::Clear);
    tenure.update_status(&StatusUpdate::new().platform(healed)).unwrap();
    assert_eq!(of("p7"), (Some("connected".to_owned()), None));
    assert_eq!(of("p8"), (Some("fatal".to_owned()), Some("p8".to_owned())));
}
