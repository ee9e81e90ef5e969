//! Mini-programs: the tags of `tools/rtmp-flood/tags` on connections of the world.

use std::time::Instant;

use rtmp_gateway::gateway::{ConnId, Listener};
use rtmp_gateway::rtmp::client::RtmpUrl;

use super::World;
use super::tags::{LivePlayer, LivePusher, Output, Phone, Tag};

/// A tag of the world, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagId(usize);

/// One tag and its connection.
pub(super) struct Leg {
    kind: Kind,
    conn: Option<ConnId>,
    codes: Vec<(Instant, i32)>,
}

enum Kind {
    Pusher(Box<LivePusher>),
    Player(Box<LivePlayer>),
}

impl Leg {
    fn tag(&mut self) -> &mut dyn Tag {
        match &mut self.kind {
            Kind::Pusher(pusher) => &mut **pusher,
            Kind::Player(player) => &mut **player,
        }
    }

    fn next_timeout(&self) -> Option<Instant> {
        match &self.kind {
            Kind::Pusher(pusher) => pusher.next_timeout(),
            Kind::Player(player) => player.next_timeout(),
        }
    }
}

impl World {
    /// `<live-pusher>` with this URL, or path of the gateway's; with camera and microphone.
    pub fn live_pusher(&mut self, url: &str, media: [bool; 2]) -> TagId {
        let seed = self.draw();
        let pusher = LivePusher::new(parse(url), Phone::new(), media, seed);
        self.add_leg(Kind::Pusher(Box::new(pusher)))
    }

    /// `<live-player>` with this URL, or path of the gateway's.
    pub fn live_player(&mut self, url: &str) -> TagId {
        let seed = self.draw();
        let player = LivePlayer::new(parse(url), seed);
        self.add_leg(Kind::Player(Box::new(player)))
    }

    /// The pusher of this number, to be told what the phone does.
    pub fn pusher(&mut self, id: TagId) -> &mut LivePusher {
        match &mut self.legs[id.0].kind {
            Kind::Pusher(pusher) => pusher,
            Kind::Player(_) => panic!("a player"),
        }
    }

    /// The player of this number.
    pub fn player(&self, id: TagId) -> &LivePlayer {
        match &self.legs[id.0].kind {
            Kind::Player(player) => player,
            Kind::Pusher(_) => panic!("a pusher"),
        }
    }

    /// The state codes that its page got, in order.
    pub fn codes(&self, id: TagId) -> Vec<i32> {
        self.legs[id.0]
            .codes
            .iter()
            .map(|(_, code)| *code)
            .collect()
    }

    /// The page takes the tag away.
    pub fn stop_tag(&mut self, id: TagId) {
        self.legs[id.0].tag().stop();
        self.pump_leg(id.0);
    }

    /// The phone changes its network: the connection is gone for the phone at once, and the gateway is
    /// told nothing.
    pub fn lose_network(&mut self, id: TagId) {
        let now = self.now;
        let leg = &mut self.legs[id.0];
        leg.conn = None;
        leg.tag().handle_closed(now);
        self.pump_leg(id.0);
    }

    fn add_leg(&mut self, kind: Kind) -> TagId {
        self.legs.push(Leg {
            kind,
            conn: None,
            codes: Vec::new(),
        });
        let id = self.legs.len() - 1;
        self.pump_leg(id);
        TagId(id)
    }

    pub(super) fn next_leg_timeout(&self) -> Option<Instant> {
        let legs = self.legs.iter();
        legs.filter_map(Leg::next_timeout).min()
    }

    pub(super) fn run_legs(&mut self) {
        for index in 0..self.legs.len() {
            let now = self.now;
            let leg = &mut self.legs[index];
            if leg.next_timeout().is_some_and(|at| at <= now) {
                leg.tag().handle_timeout(now);
                self.pump_leg(index);
            }
        }
    }

    pub(super) fn leg_of(&self, conn: ConnId) -> Option<usize> {
        self.legs.iter().position(|leg| leg.conn == Some(conn))
    }

    pub(super) fn leg_arrived(&mut self, index: usize, bytes: &[u8]) {
        let now = self.now;
        self.legs[index].tag().handle_received(now, bytes);
        self.pump_leg(index);
    }

    pub(super) fn leg_closed(&mut self, index: usize) {
        let now = self.now;
        self.legs[index].conn = None;
        self.legs[index].tag().handle_closed(now);
        self.pump_leg(index);
    }

    fn pump_leg(&mut self, index: usize) {
        while let Some(output) = self.legs[index].tag().poll_output() {
            match output {
                Output::Connect => {
                    let conn = self.connect(Listener::Rtmp);
                    self.legs[index].conn = Some(conn);
                    self.legs[index].tag().handle_connected();
                }
                Output::Transmit => self.write_leg(index),
                Output::Close => {
                    self.write_leg(index);
                    if let Some(conn) = self.legs[index].conn.take() {
                        self.hang_up(conn);
                    }
                }
                Output::Code(code) => {
                    let now = self.now;
                    self.legs[index].codes.push((now, code));
                }
            }
        }
    }

    fn write_leg(&mut self, index: usize) {
        let leg = &mut self.legs[index];
        let Some(conn) = leg.conn else { return };
        let mut bytes = Vec::new();
        while let Some(part) = leg.tag().transmit().pop() {
            bytes.extend_from_slice(&part);
        }
        if !bytes.is_empty() {
            self.send_to_gateway(conn, bytes);
        }
    }
}

fn parse(url: &str) -> RtmpUrl {
    let whole = match url.starts_with("rtmp://") {
        true => url.to_owned(),
        false => format!("rtmp://gateway.test/{url}"),
    };
    RtmpUrl::parse(&whole).expect("a URL")
}
