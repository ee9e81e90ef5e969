//! A room as one of its members sees it, with the URLs that are made for it.

use std::time::Instant;

use super::{Conversations, MemberKey, Named, No, SessionKey, no};
use crate::signaling::message::answer::{
    Done, MemberInfo, MemberUrl, PlayUrl, PushUrl, RoomState, Urls,
};
use crate::signaling::message::{Kind, Name, Reason};

impl Conversations {
    pub(super) fn urls(
        &mut self,
        now: Instant,
        session: SessionKey,
        name: &Name,
    ) -> Result<Done, No> {
        let key = self.member_in(session, name)?;
        let Some(state) = self.room_state(now, key) else {
            return no(Reason::NotInRoom, "This session is not in the room.");
        };
        let Some(push) = state.push else {
            return no(Reason::WrongKind, "Only an RTMP member has URLs.");
        };
        let members = state.members.into_iter();
        Ok(Done::Urls(Box::new(Urls {
            room: state.room,
            push,
            play: members
                .filter_map(|member| {
                    Some(MemberUrl {
                        member: member.member,
                        play: member.play?,
                    })
                })
                .collect(),
        })))
    }

    /// The room as one of its members sees it.
    pub(super) fn room_state(&mut self, now: Instant, key: MemberKey) -> Option<RoomState> {
        let room = self.room_of(key)?;
        let (name, members) = (room.name.clone(), room.members.clone());
        let others = members.iter().filter(|other| **other != key);
        let infos = others.filter_map(|other| self.member_info(now, key, *other));
        let members = infos.collect();
        let push = self.url(now, key, key).map(|url| PushUrl {
            url,
            expires_ms: self.settings.token_ttl.as_millis() as u64,
        });
        Some(RoomState {
            room: name,
            member: key.name(),
            members,
            push,
        })
    }

    /// `key` as `viewer` sees it.
    pub(super) fn member_info(
        &mut self,
        now: Instant,
        viewer: MemberKey,
        key: MemberKey,
    ) -> Option<MemberInfo> {
        let play = self.url(now, viewer, key).map(|url| PlayUrl {
            audio_url: format!("{url}&media=audio"),
            url,
        });
        let member = self.members.get(&key)?;
        Some(MemberInfo {
            member: key.name(),
            user: member.user.clone(),
            name: member.title.clone(),
            kind: member.kind,
            audio: member.audio.on,
            video: member.video.on,
            means_audio: member.means.audio,
            means_video: member.means.video,
            muted_audio: member.muted.audio,
            muted_video: member.muted.video,
            play,
        })
    }

    /// Where an RTMP member publishes (`holder` is `stream`) or plays another one.
    fn url(&mut self, now: Instant, holder: MemberKey, stream: MemberKey) -> Option<String> {
        let member = self.members.get(&holder)?;
        if member.kind != Kind::Rtmp {
            return None;
        }
        let base = &self.sessions.get(&member.session)?.rtmp_base;
        let room = &self.rooms.get(&member.room)?.name;
        let token = self.tokens.issue(
            now,
            self.settings.token_ttl,
            &mut self.secrets,
            holder,
            stream,
        );
        let path = stream_name(room, stream);
        Some(format!("{base}/{path}?token={token}"))
    }
}

/// The name of a member's stream: what stands in its URLs.
pub(super) fn stream_name(room: &Name, member: MemberKey) -> String {
    format!("{}/{room}/{member}", super::super::ROOM_APP)
}
