use super::*;

fn problems(text: &str) -> Vec<String> {
    let error = Config::parse("gateway.toml", text).expect_err("a refused configuration");
    error.to_string().lines().map(str::to_owned).collect()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(Config::parse("f", "").as_ref(), Ok(&Config::default()));
    assert_eq!(Config::default().contradictions(), []);
}

#[test]
fn values_are_read_in_their_units() {
    let config = Config::parse(
        "f",
        r#"
        [rtmp]
        listen = "127.0.0.1:11935"
        play_wait_ms = 0
        [http]
        listen = ":18080"
        [webrtc]
        public_addresses = ["203.0.113.7", "198.51.100.1:18000", "2001:db8::1", "[2001:db8::2]:9"]
        [streams]
        gop_cache = "idr"
        fast_start_rate = 4
        b_frames = "refuse"
        [sockets]
        udp_send_buffer_bytes = 0x10_0000
        tcp_congestion = ""
        "#,
    )
    .expect("a good file");
    assert_eq!(config.rtmp.listen, "127.0.0.1:11935".parse().unwrap());
    assert_eq!(config.rtmp.play_wait, Duration::ZERO);
    assert_eq!(config.http.listen, "[::]:18080".parse().unwrap());
    let addresses: Vec<String> = config
        .webrtc
        .public_addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        addresses,
        [
            "203.0.113.7",
            "198.51.100.1:18000",
            "2001:db8::1",
            "[2001:db8::2]:9"
        ]
    );
    assert_eq!(config.streams.gop_cache, GopCache::Idr);
    assert_eq!(config.streams.fast_start_rate, 4.0);
    assert_eq!(config.streams.b_frames, BFramePolicy::Refuse);
    assert_eq!(config.sockets.udp_send_buffer_bytes, 1 << 20);
    assert_eq!(config.sockets.tcp_congestion, "");
    assert_eq!(config.webrtc.payload_bytes_max, 1_160);
}

#[test]
fn everything_wrong_is_told_at_once_in_the_order_of_the_file() {
    assert_eq!(
        problems(
            r#"lisen = 1
[rtmp]
listen = "localhost:1935"
handshake_timeout_ms = 50
chunk_sise = 4096
udp_gso = true
[htpp]
[streams]
gop_cache = "all"
[audio]
workers = "two"
opus_complexity = 11
[sockets]
tcp_congestion = "no such name at all"
[quux]
"#
        ),
        [
            "gateway.toml: lisen: unknown key (line 1)",
            "gateway.toml: rtmp.listen: \"localhost:1935\" is not an IP address with a port like \
             \"127.0.0.1:1935\" or \"[::]:1935\" (line 3)",
            "gateway.toml: rtmp.handshake_timeout_ms: 50 is not between 100 and 60000 (line 4)",
            "gateway.toml: rtmp.chunk_sise: unknown key, did you mean chunk_size? (line 5)",
            "gateway.toml: rtmp.udp_gso: unknown key, it belongs under [sockets] (line 6)",
            "gateway.toml: htpp: unknown section, did you mean [http]? (line 7)",
            "gateway.toml: streams.gop_cache: \"all\" is none of \"gop\", \"idr\", \"off\" (line 9)",
            "gateway.toml: audio.workers: must be a whole number, not a text (line 11)",
            "gateway.toml: audio.opus_complexity: 11 is not between 0 and 10 (line 12)",
            "gateway.toml: sockets.tcp_congestion: \"no such name at all\" must be a name like \
             \"bbr\" or \"cubic\" (line 14)",
            "gateway.toml: quux: unknown section (line 15)",
        ]
    );
}

#[test]
fn every_type_refuses_what_it_is_not() {
    for (line, reason) in [
        ("rtmp = 1", "rtmp: must be a section: [rtmp]"),
        ("[[rtmp]]", "rtmp: must be a section: [rtmp]"),
        (
            "rtmp.listen = 1935",
            "must be a text in quotes, not a whole number",
        ),
        ("rtmp.chunk_size = -1", "-1 is not between 128 and 65536"),
        (
            "rtmp.chunk_size = 1e3",
            "must be a whole number, not a number with a point",
        ),
        ("rtmp.chunk_size = 99999999999999999999", "is not between"),
        (
            "webrtc.tcp = 1",
            "must be true or false, not a whole number",
        ),
        (
            "webrtc.rtx_ratio_max = 1.5",
            "1.5 is not between 0.0 and 1.0",
        ),
        ("webrtc.rtx_ratio_max = nan", "nan is not between"),
        (
            "webrtc.rtx_ratio_max = true",
            "must be a number, not true or false",
        ),
        ("webrtc.public_addresses = \"1.2.3.4\"", "must be a list"),
        (
            "webrtc.public_addresses = [\"gw.example\"]",
            "is not an IP address",
        ),
        (
            "webrtc.public_addresses = [\"0.0.0.0\"]",
            "not an address a client can reach",
        ),
        ("webrtc.public_addresses = [1]", "must be a text in quotes"),
        ("http.public_url = \"gw.example\"", "must be like"),
        ("http.public_url = \"https://gw.example/\"", "must be like"),
        ("http.cors_allow_origin = \"a\\nb\"", "printable ASCII"),
        (
            "log.level = \"loud\"",
            "\"loud\" is none of \"off\", \"error\"",
        ),
    ] {
        let told = problems(line);
        assert_eq!(told.len(), 1, "{line}: {told:?}");
        assert!(told[0].contains(reason), "{line}: {told:?}");
    }
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let told = problems("[rtmp]\nlisten = \n");
    assert!(told[0].starts_with("gateway.toml: "), "{told:?}");
    assert!(told[0].ends_with("(line 2)"), "{told:?}");
    let told = problems("[rtmp]\nchunk_size = 128\nchunk_size = 129\n");
    assert!(told[0].contains("(line 3)"), "{told:?}");
}

#[test]
fn values_that_do_not_go_together_are_refused() {
    assert_eq!(
        problems("http.listen = \"127.0.0.1:1935\""),
        ["gateway.toml: http.listen: 127.0.0.1:1935 is taken by rtmp.listen = \"[::]:1935\""]
    );
    assert_eq!(
        problems("webrtc.listen = \":8080\""),
        ["gateway.toml: webrtc.listen: [::]:8080 is taken by http.listen = \"[::]:8080\""]
    );
    assert!(Config::parse("f", "webrtc.listen = \":8080\"\nwebrtc.tcp = false").is_ok());
    let apart = "rtmp.listen = \"0.0.0.0:80\"\nhttp.listen = \"[::1]:80\"";
    assert!(Config::parse("f", apart).is_ok());
    assert!(Config::parse("f", "rtmp.listen = \":0\"\nhttp.listen = \":0\"").is_ok());
    assert!(problems("rtmp.partial_bytes_max = 70000")[0].contains("less than"));
    assert!(
        problems("webrtc.listen = \"0.0.0.0:1\"\nwebrtc.public_addresses = [\"2001:db8::1\"]")[0]
            .contains("of another family")
    );
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("no/such.toml")).expect_err("no file");
    assert!(
        error
            .to_string()
            .starts_with("no/such.toml: cannot be read: ")
    );
}
