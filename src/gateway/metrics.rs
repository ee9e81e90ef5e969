//! What `/metrics` tells Prometheus.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Connection, Gateway};
use crate::http::Response;
use crate::http::prometheus::{Exposition, Kind};
use crate::signaling::message::Reason;
use crate::signaling::message::event::EndReason;

impl Gateway {
    /// The metrics page.
    pub(super) fn metrics(&mut self, now: Instant) -> Response {
        let mut page = Exposition::new();
        self.process_metrics(now, &mut page);
        self.traffic_metrics(&mut page);
        self.world_metrics(&mut page);
        self.transcode_metrics(&mut page);
        self.conversation_metrics(&mut page);
        self.callbacks.metrics(&mut page);
        self.stream_metrics(now, &mut page);
        page.into_response()
    }

    fn process_metrics(&self, now: Instant, page: &mut Exposition) {
        page.family(
            "rtmp_gateway_build_info",
            "The version that runs.",
            Kind::Gauge,
        )
        .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.family(
            "rtmp_gateway_uptime_seconds",
            "Time since the start.",
            Kind::Gauge,
        )
        .sample(&[], now.duration_since(self.started).as_secs_f64());
        let mut connections =
            BTreeMap::from([("rtmp", 0), ("http", 0), ("ice_tcp", 0), ("websocket", 0)]);
        for connection in self.connections.values() {
            let kind = match connection {
                Connection::Rtmp(_) => "rtmp",
                Connection::Http(_) => "http",
                Connection::IceTcp(_) => "ice_tcp",
                Connection::WebSocket(_) => "websocket",
            };
            *connections.entry(kind).or_default() += 1;
        }
        let mut family = page.family(
            "rtmp_gateway_connections",
            "TCP connections that are open.",
            Kind::Gauge,
        );
        for (kind, count) in connections {
            family.sample(&[("kind", kind)], count);
        }
        page.family(
            "rtmp_gateway_webrtc_sessions",
            "WebRTC sessions that are open.",
            Kind::Gauge,
        )
        .sample(&[("role", "publisher")], self.publishers)
        .sample(&[("role", "viewer")], self.sessions.len() - self.publishers);
        page.family(
            "rtmp_gateway_streams",
            "Streams that are published or waited for.",
            Kind::Gauge,
        )
        .sample(&[], self.hub.len());
        let mut family = page.family(
            "rtmp_gateway_sessions_total",
            "Sessions begun, by kind.",
            Kind::Counter,
        );
        for (kind, count) in &self.stats.sessions {
            family.sample(&[("kind", kind)], count);
        }
        let mut family = page.family(
            "rtmp_gateway_errors_total",
            "What was refused or ended against a peer's wish, by reason.",
            Kind::Counter,
        );
        for (reason, count) in &self.stats.errors {
            family.sample(&[("reason", reason)], count);
        }
        let mut family = page.family(
            "rtmp_gateway_http_responses_total",
            "HTTP responses, by status code.",
            Kind::Counter,
        );
        for (code, count) in &self.stats.http_responses {
            family.sample(&[("code", &code.to_string())], count);
        }
    }

    fn traffic_metrics(&self, page: &mut Exposition) {
        let stats = &self.stats;
        let counters = [
            (
                "rtmp_gateway_tcp_received_bytes_total",
                "Bytes from TCP peers.",
                stats.tcp_received_bytes,
            ),
            (
                "rtmp_gateway_datagrams_received_total",
                "UDP datagrams taken.",
                stats.datagrams_received,
            ),
            (
                "rtmp_gateway_datagrams_received_bytes_total",
                "Bytes in them.",
                stats.datagram_received_bytes,
            ),
            (
                "rtmp_gateway_datagrams_sent_total",
                "UDP datagrams sent.",
                stats.datagrams_sent,
            ),
            (
                "rtmp_gateway_datagrams_sent_bytes_total",
                "Bytes in them.",
                stats.datagram_sent_bytes,
            ),
            (
                "rtmp_gateway_datagrams_unrouted_total",
                "UDP datagrams that belong to no session.",
                stats.datagrams_unrouted,
            ),
            (
                "rtmp_gateway_keyframe_requests_sent_total",
                "Key frames asked of WebRTC publishers.",
                stats.keyframe_requests_sent,
            ),
            (
                "rtmp_gateway_keyframe_requests_received_total",
                "Key frames that viewers asked for.",
                stats.keyframe_requests_received,
            ),
            (
                "rtmp_gateway_viewers_thinned_total",
                "Times that a viewer's path did not carry all of its stream.",
                stats.viewers_thinned,
            ),
            (
                "rtmp_gateway_echoes_answered_total",
                "Echoes that viewers answered whose path did not carry all of their stream.",
                stats.echoes_answered,
            ),
        ];
        for (name, help, value) in counters {
            page.family(name, help, Kind::Counter).sample(&[], value);
        }
    }

    fn transcode_metrics(&self, page: &mut Exposition) {
        let stats = &self.stats;
        page.family(
            "rtmp_gateway_transcode_pipelines",
            "Streams whose sound is transcoded.",
            Kind::Gauge,
        )
        .sample(&[], self.transcoding.len());
        page.family(
            "rtmp_gateway_transcode_pending_jobs",
            "Jobs handed to workers and not back.",
            Kind::Gauge,
        )
        .sample(&[], self.transcoding.pending());
        page.family(
            "rtmp_gateway_transcode_busy_seconds_total",
            "Time that workers worked.",
            Kind::Counter,
        )
        .sample(&[], stats.transcode_busy_us as f64 / 1e6);
        page.family(
            "rtmp_gateway_transcode_concealed_seconds_total",
            "Sound made up for what was missing.",
            Kind::Counter,
        )
        .sample(&[], stats.transcode_concealed_samples as f64 / 48_000.0);
        page.family(
            "rtmp_gateway_transcode_silence_seconds_total",
            "Silence put in where nothing came for longer than sound can be made up, or at all.",
            Kind::Counter,
        )
        .sample(&[], stats.transcode_silence_samples as f64 / 48_000.0);
        let counters = [
            (
                "rtmp_gateway_transcode_frames_total",
                "Audio frames made.",
                stats.transcode_frames,
            ),
            (
                "rtmp_gateway_transcode_dropped_frames_total",
                "Audio frames that a worker had no room for.",
                stats.transcode_dropped_frames,
            ),
            (
                "rtmp_gateway_transcode_errors_total",
                "Audio frames that a codec could not use.",
                stats.transcode_errors,
            ),
        ];
        for (name, help, value) in counters {
            page.family(name, help, Kind::Counter).sample(&[], value);
        }
    }

    fn conversation_metrics(&self, page: &mut Exposition) {
        let sizes = self.conversations.sizes();
        let mut family = page.family(
            "rtmp_gateway_conversations",
            "What there is of rooms and calls.",
            Kind::Gauge,
        );
        for (kind, count) in [
            ("session", sizes.sessions),
            ("user", sizes.users),
            ("room", sizes.rooms),
            ("member", sizes.members),
            ("call", sizes.calls),
            ("leg", sizes.legs),
            ("token", sizes.tokens),
            ("waiting", sizes.waiting),
        ] {
            family.sample(&[("kind", kind)], count);
        }
        let counts = self.conversations.counts();
        let mut family = page.family(
            "rtmp_gateway_signaling_events_total",
            "What happened on WebSockets, by kind.",
            Kind::Counter,
        );
        for (kind, count) in [
            ("message", counts.messages),
            ("repeated_request", counts.repeated),
            ("sign_in", counts.sessions),
            ("resume", counts.resumed),
            ("heartbeat_missed", counts.heartbeats_missed),
            ("room", counts.rooms),
            ("call", counts.calls),
        ] {
            family.sample(&[("kind", kind)], count);
        }
        let mut family = page.family(
            "rtmp_gateway_signaling_errors_total",
            "Requests that were refused, by reason.",
            Kind::Counter,
        );
        for reason in Reason::ALL {
            family.sample(&[("reason", reason.as_str())], counts.errors(*reason));
        }
        let mut family = page.family(
            "rtmp_gateway_calls_ended_total",
            "Calls that are over, by reason.",
            Kind::Counter,
        );
        for reason in EndReason::ALL {
            family.sample(&[("reason", reason.as_str())], counts.ended(*reason));
        }
        let times = self.conversations.set_up_times();
        page.histogram(
            "rtmp_gateway_call_setup_seconds",
            "From the acceptance of a call until picture and sound went to both sides.",
            times.buckets(),
            times.total(),
            times.sum().as_secs_f64(),
        );
    }

    fn world_metrics(&self, page: &mut Exposition) {
        let world = &self.world;
        page.family(
            "rtmp_gateway_datagrams_dropped_total",
            "Datagrams that did not leave, by cause.",
            Kind::Counter,
        )
        .sample(&[("cause", "full")], world.datagrams_dropped_full)
        .sample(&[("cause", "refused")], world.datagrams_dropped_refused);
        let counters = [
            (
                "rtmp_gateway_datagrams_received_bad_total",
                "Datagrams that came too long or by an address that is not ours.",
                world.datagrams_received_bad,
            ),
            (
                "rtmp_gateway_datagram_send_calls_total",
                "System calls that datagrams were sent with.",
                world.datagram_send_calls,
            ),
            (
                "rtmp_gateway_connections_refused_total",
                "TCP connections closed on arrival, at their limit.",
                world.connections_refused,
            ),
        ];
        for (name, help, value) in counters {
            page.family(name, help, Kind::Counter).sample(&[], value);
        }
        page.family(
            "rtmp_gateway_udp_gso",
            "1 if many datagrams leave as one message.",
            Kind::Gauge,
        )
        .sample(&[], u64::from(world.has_gso));
        page.family(
            "rtmp_gateway_longest_turn_seconds",
            "The longest turn of the loop.",
            Kind::Gauge,
        )
        .sample(&[], world.longest_turn_us as f64 / 1e6);
    }

    fn stream_metrics(&mut self, now: Instant, page: &mut Exposition) {
        let held: Vec<_> = self
            .hub
            .sorted()
            .into_iter()
            .map(|(id, stream)| (stream.key.clone(), self.held(now, id, stream)))
            .collect();
        let streams: Vec<_> = self
            .hub
            .sorted()
            .into_iter()
            .map(|(_, stream)| stream)
            .collect();
        let mut family = page.family(
            "rtmp_gateway_stream_players",
            "Players of a stream.",
            Kind::Gauge,
        );
        for stream in &streams {
            family
                .sample(
                    &[("stream", &stream.key), ("protocol", "rtmp")],
                    stream.rtmp_players(),
                )
                .sample(
                    &[("stream", &stream.key), ("protocol", "whep")],
                    stream.webrtc_players(),
                );
        }
        let tracks = streams.iter().flat_map(|stream| {
            [(&stream.video, "video"), (&stream.audio, "audio")]
                .into_iter()
                .filter_map(move |(track, kind)| Some((*stream, kind, track.as_ref()?)))
        });
        let tracks: Vec<_> = tracks.collect();
        let mut family = page.family(
            "rtmp_gateway_stream_received_bytes_total",
            "Payload bytes of a stream's track.",
            Kind::Counter,
        );
        for (stream, kind, track) in &tracks {
            family.sample(
                &[("stream", &stream.key), ("track", kind)],
                track.meter.bytes,
            );
        }
        let mut family = page.family(
            "rtmp_gateway_stream_received_frames_total",
            "Frames of a stream's track.",
            Kind::Counter,
        );
        for (stream, kind, track) in &tracks {
            family.sample(
                &[("stream", &stream.key), ("track", kind)],
                track.meter.frames,
            );
        }
        let mut family = page.family(
            "rtmp_gateway_stream_b_frames_total",
            "B-frames, which browsers cannot show: set them to 0 in the encoder.",
            Kind::Counter,
        );
        for stream in &streams {
            family.sample(&[("stream", &stream.key)], stream.health.b_frames);
        }
        let mut family = page.family(
            "rtmp_gateway_stream_b_frames_dropped_total",
            "Pictures that browsers did not get because of B-frames.",
            Kind::Counter,
        );
        for stream in &streams {
            family.sample(&[("stream", &stream.key)], stream.health.b_frames_dropped);
        }
        let mut family = page.family(
            "rtmp_gateway_stream_silence_seconds",
            "Time since a stream's publisher sent media.",
            Kind::Gauge,
        );
        for stream in &streams {
            if let Some(publisher) = &stream.publisher {
                let silent = now.duration_since(publisher.last_media).as_secs_f64();
                family.sample(&[("stream", &stream.key)], silent);
            }
        }
        let mut family = page.family(
            "rtmp_gateway_stream_held_seconds",
            "Media time of a stream that waits inside, by where: for lost packets, at the \
             transcoder, for the slowest player.",
            Kind::Gauge,
        );
        for (key, held) in &held {
            for (place, ms) in [
                ("ingest", held.ingest_ms),
                ("transcode", held.transcode_ms),
                ("players", held.players_ms),
            ] {
                let labels = [("stream", &**key), ("place", place)];
                family.sample(&labels, ms as f64 / 1e3);
            }
        }
    }
}
