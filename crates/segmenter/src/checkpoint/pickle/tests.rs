use super::*;
use proptest::prelude::*;

/// The pickle of a checkpoint, whose zip stores it as it is.
fn program() -> Vec<u8> {
    let file = include_bytes!("../../../tests/parity/storages.pth");
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(file)).unwrap();
    let mut program = Vec::new();
    std::io::Read::read_to_end(&mut zip.by_name("storages/data.pkl").unwrap(), &mut program).unwrap();
    program
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    #[test]
    fn survives_any_damage_to_a_pickle(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut program = program();
        prop_assert!(state_dict(&program).is_ok());
        for (place, byte) in damage {
            let place = place.index(program.len());
            program[place] = byte;
        }
        let _ = state_dict(&program);
    }

    #[test]
    fn survives_any_bytes(program in prop::collection::vec(prop::sample::select(b"\x80\x02()tRqh}usbQNXKJM.c\n\x85\x87\x8a\x00\x01".to_vec()), 0..200)) {
        let _ = state_dict(&program);
    }
}

fn refusal(program: &[u8]) -> String {
    format!("{:?}", state_dict(program).unwrap_err())
}

#[test]
fn reads_an_empty_state_dict() {
    assert_eq!(state_dict(b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01."), Ok(vec![]));
    assert_eq!(state_dict(b"\x80\x02}q\x00."), Ok(vec![]));
}

#[test]
fn refuses_to_call_anything_else() {
    assert!(refusal(b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.").contains("the Python object os.system"));
    assert!(refusal(b"\x80\x02ctorch._utils\n_rebuild_parameter\n)R.").contains("_rebuild_parameter"));
    assert!(refusal(b"\x80\x02ctorch\nFloatStorage\n)R.").contains("calls a class"));
    assert!(refusal(b"\x80\x02(S'id'\nios\nsystem\n.").contains("opcode 0x53"));
}

#[test]
fn names_what_is_not_a_tensor() {
    assert!(
        refusal(b"\x80\x02}X\x05\x00\x00\x00modelccollections\nOrderedDict\n)Rs.").contains("a dictionary under \\\"model\\\"")
    );
    assert!(refusal(b"\x80\x02K\x05.").contains("a number instead of a state_dict"));
}

#[test]
fn refuses_nesting_that_would_exhaust_the_stack() {
    let mut program = vec![b')'];
    program.extend(vec![0x85; 1_000_000]);
    assert!(refusal(&program).contains("more than 8 deep"));
}

#[test]
fn refuses_a_dictionary_that_contains_itself() {
    assert!(refusal(b"}q\x00X\x01\x00\x00\x00ah\x00s.").contains("a dictionary under"));
}

#[test]
fn refuses_a_program_that_does_not_fit_together() {
    for program in [
        &b""[..],
        b"\x80",
        b"X\xff\xff\xff\xff",
        b"R",
        b"t",
        b"(.",
        b"h\x07.",
        b"0",
        b"\x8a\x09123456789.",
        b"(K\x01u.",
        b"}(K\x01u.",
    ] {
        assert!(refusal(program).starts_with("Malformed"), "{program:?}");
    }
}
