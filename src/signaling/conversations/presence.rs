//! Users: who is there, on which devices, and who wants to be told.

use super::session::Session;
use super::{Conversations, No, SessionKey};
use crate::access::{Resource, Right};
use crate::signaling::message::Name;
use crate::signaling::message::answer::{Done, UserInfo, UserState};
use crate::signaling::message::event::Event;

/// Somebody who is signed in on at least one device.
#[derive(Debug, Default)]
pub(super) struct User {
    pub(super) sessions: Vec<SessionKey>,
    /// What others were told last.
    shown: Option<UserInfo>,
}

impl Conversations {
    pub(super) fn list_users(&mut self, key: SessionKey, watch: bool) -> Result<Done, No> {
        let Some(session) = self.sessions.get_mut(&key) else {
            return Ok(Done::Nothing {});
        };
        session.watches = watch;
        let own = session.user.clone();
        let others = self.users.keys().filter(|user| **user != own);
        let users = others.filter_map(|user| self.user_info(user)).collect();
        Ok(Done::Users { users })
    }

    /// Tells those who watch if a user has changed.
    pub(super) fn review_user(&mut self, name: &Name) {
        let info = self.user_info(name);
        let Some(user) = self.users.get_mut(name) else {
            return;
        };
        let event = match info {
            Some(info) if user.shown.as_ref() == Some(&info) => return,
            Some(info) => {
                user.shown = Some(info.clone());
                info
            }
            None => {
                let Some(user) = self.users.remove(name) else {
                    return;
                };
                let Some(shown) = user.shown else { return };
                UserInfo {
                    state: UserState::Offline,
                    kinds: Vec::new(),
                    ..shown
                }
            }
        };
        let event = Event::User(event);
        let watching = self.sessions.iter();
        let watching: Vec<SessionKey> = watching
            .filter(|(_, session)| session.watches && session.user != *name)
            .map(|(key, _)| *key)
            .collect();
        for key in watching {
            self.tell(key, &event);
        }
    }

    pub(super) fn forget_device(&mut self, name: &Name, key: SessionKey) {
        if let Some(user) = self.users.get_mut(name) {
            user.sessions.retain(|session| *session != key);
            self.review_user(name);
        }
    }

    /// Whether a session can be rung.
    pub(super) fn is_free(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(&key);
        session.is_some_and(|session| {
            session.call.is_none() && session.rights.allows(Right::Call, Resource::Any)
        })
    }

    pub(super) fn has_legs(&self, session: &Session) -> bool {
        let member = session.member.and_then(|member| self.members.get(&member));
        member.is_some_and(|member| !member.legs.is_empty())
    }

    fn user_info(&self, name: &Name) -> Option<UserInfo> {
        let sessions = &self.users.get(name)?.sessions;
        let first = self.sessions.get(sessions.first()?)?;
        let is_free = sessions.iter().any(|key| self.is_free(*key));
        Some(UserInfo {
            user: name.clone(),
            name: first.title.clone(),
            kinds: self.kinds_of(sessions),
            state: match is_free {
                true => UserState::Free,
                false => UserState::Busy,
            },
        })
    }
}
