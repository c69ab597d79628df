//! The controller's driver over a database that can refuse.

use uuid::Uuid;

use super::*;

/// A world that notes what is claimed, and whose disk may be full.
#[derive(Default)]
struct World {
    is_full: bool,
    written: Option<Run>,
    claimed: Vec<(NodeId, Run)>,
}

#[derive(Debug, PartialEq, Eq)]
struct Full;

impl DeskWorld for World {
    type Error = Full;

    fn persist_run(&mut self, run: Run) -> Result<(), Full> {
        if self.is_full {
            return Err(Full);
        }
        self.written = Some(run);
        Ok(())
    }
    fn persist_row(&mut self, row: &Row) -> Result<Row, Full> {
        Ok(row.clone())
    }
    fn row(&mut self, _: ContainerId, _: Epoch) -> Result<Option<Row>, Full> {
        Ok(None)
    }
    fn spec(&mut self, _: ContainerId) -> Result<Option<ContainerSpec>, Full> {
        Ok(None)
    }
    fn claim(&mut self, node: &NodeId, run: Run, _: Life) -> Result<(), Full> {
        assert_eq!(self.written, Some(run), "a run is claimed that a crash would forget");
        self.claimed.push((node.clone(), run));
        Ok(())
    }
    fn order(
        &mut self,
        _: &NodeId,
        _: Run,
        _: ContainerId,
        _: Epoch,
        _: Order,
    ) -> Result<(), Full> {
        Ok(())
    }
}

fn hello(life: u128, promise: Option<Run>) -> Message {
    let life = Life { boot: Uuid::from_u128(life), incarnation: Uuid::from_u128(1) };
    Message::Hello { life, promise }
}

#[test]
fn a_run_that_could_not_be_written_is_claimed_of_nobody_until_it_is() {
    let (mut world, now) = (World::default(), Duration::ZERO);
    let (a, b): (NodeId, NodeId) = ("a".parse().unwrap(), "b".parse().unwrap());
    let mut desk = Desk::open(&mut world, 3, 7, Vec::new(), now).unwrap();
    // Another run was promised: this one must claim above it, and cannot write that.
    world.is_full = true;
    let rival = Run { generation: 9, nonce: 1 };
    assert_eq!(desk.hear(&mut world, &a, &hello(1, Some(rival)), now), Err(Full));
    assert_eq!(desk.tick(&mut world, now), Err(Full));
    assert_eq!(desk.hear(&mut world, &b, &hello(1, None), now), Err(Full));
    assert!(world.claimed.is_empty(), "{:?}", world.claimed);

    world.is_full = false;
    desk.tick(&mut world, now).unwrap();
    let run = Run { generation: 10, nonce: 7 };
    assert_eq!(world.claimed, [(a, run), (b, run)]);
}
