//! The files of the page at `/`, part of the binary.
//!
//! Plain HTML, CSS and JavaScript modules, served as they stand in `page/`; nothing is
//! loaded from elsewhere, which the content security policy enforces.

use std::fmt::Write as _;

use bytes::Bytes;

use super::{Request, Response, Status};

/// One file of the page.
#[derive(Debug, PartialEq, Eq)]
pub struct Asset {
    /// Its one path segment; empty for the page itself.
    name: &'static str,
    content_type: &'static str,
    contents: &'static str,
}

impl Asset {
    /// The file at this path.
    pub fn find(path: &[String]) -> Option<&'static Asset> {
        let name = match path {
            [] => "",
            [name] if !name.is_empty() => name,
            _ => return None,
        };
        ASSETS.iter().find(|asset| asset.name == name)
    }

    /// The answer to GET and HEAD: 304 if the browser has this version already. It asks
    /// each time, so a page never outlives the binary it came from.
    pub fn respond(&self, request: &Request) -> Response {
        let tag = self.entity_tag();
        let known = request
            .headers
            .list("if-none-match")
            .any(|found| found == "*" || found.trim_start_matches("W/") == tag);
        let response = Response::new(if known {
            Status::NotModified
        } else {
            Status::Ok
        })
        .with_header("ETag", tag)
        .with_header("Cache-Control", "no-cache")
        .with_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        .with_header("Permissions-Policy", PERMISSIONS_POLICY)
        // A token in a deep link stays here.
        .with_header("Referrer-Policy", "no-referrer")
        .with_header("X-Content-Type-Options", "nosniff");
        if known {
            return response;
        }
        response.with_body(
            self.content_type,
            Bytes::from_static(self.contents.as_bytes()),
        )
    }

    fn entity_tag(&self) -> String {
        let mut tag = String::from("\"");
        // Writing to a `String` cannot fail.
        let _ = write!(tag, "{:016x}\"", fnv1a(self.contents.as_bytes()));
        tag
    }
}

/// FNV-1a, 64 bits: tells versions of a file apart, nothing more.
const fn fnv1a(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0100_0000_01b3);
        index += 1;
    }
    hash
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of `page/` by its own name.
macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset {
            name: $name,
            content_type: $content_type,
            contents: include_str!(concat!("page/", $name)),
        }
    };
}

const ASSETS: [Asset; 19] = [
    Asset {
        name: "",
        content_type: "text/html; charset=utf-8",
        contents: include_str!("page/index.html"),
    },
    Asset {
        name: "call",
        content_type: "text/html; charset=utf-8",
        contents: include_str!("page/call.html"),
    },
    asset!("style.css", "text/css; charset=utf-8"),
    asset!("call.css", "text/css; charset=utf-8"),
    asset!("icon.svg", "image/svg+xml"),
    asset!("app.js", JAVASCRIPT),
    asset!("call.js", JAVASCRIPT),
    asset!("format.js", JAVASCRIPT),
    asset!("health.js", JAVASCRIPT),
    asset!("parts.js", JAVASCRIPT),
    asset!("ringer.js", JAVASCRIPT),
    asset!("room-media.js", JAVASCRIPT),
    asset!("session.js", JAVASCRIPT),
    asset!("sources.js", JAVASCRIPT),
    asset!("ticker.js", JAVASCRIPT),
    asset!("whep.js", JAVASCRIPT),
    asset!("whip.js", JAVASCRIPT),
    // The signalling of the mini-program, which is not told twice.
    Asset {
        name: "signalling.js",
        content_type: JAVASCRIPT,
        contents: include_str!("../../tools/miniprogram/lib/signalling.js"),
    },
    Asset {
        name: "conversation.js",
        content_type: JAVASCRIPT,
        contents: include_str!("../../tools/miniprogram/lib/conversation.js"),
    },
];

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    img-src 'self'; media-src 'self' blob:; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'self'";

const PERMISSIONS_POLICY: &str =
    "camera=(self), microphone=(self), display-capture=(self), autoplay=(self)";

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::http::{Event, Limits, Session};

    fn get(target: &str, header: &str) -> Request {
        let now = Instant::now();
        let mut session = Session::new(Limits::default(), now);
        let wire = format!("GET {target} HTTP/1.1\r\nHost: h\r\n{header}\r\n");
        session.receive(now, wire.as_bytes()).expect("valid");
        let Some(Event::Request(request)) = session.poll_event() else {
            panic!("whole")
        };
        request
    }

    fn contents(name: &str) -> &'static str {
        let asset = ASSETS.iter().find(|asset| asset.name == name);
        asset.expect("known").contents
    }

    #[test]
    fn a_browser_that_has_the_file_is_not_sent_it_again() {
        let request = get("/?play=live/demo", "");
        let page = Asset::find(&request.path).expect("the page");
        let first = page.respond(&request);
        assert_eq!(first.status(), Status::Ok);
        assert_eq!(&first.body()[..], contents("").as_bytes());
        assert_eq!(first.header("cache-control"), Some("no-cache"));
        let tag = first.header("etag").expect("a tag").to_owned();
        for known in [
            tag.clone(),
            format!("W/{tag}"),
            format!("\"x\", {tag}"),
            "*".into(),
        ] {
            let again = get("/", &format!("If-None-Match: {known}\r\n"));
            let again = page.respond(&again);
            assert_eq!(again.status(), Status::NotModified, "{known}");
            assert!(again.body().is_empty());
            assert_eq!(again.header("etag"), Some(tag.as_str()));
        }
        let other = page.respond(&get("/", "If-None-Match: \"x\"\r\n"));
        assert_eq!(other.status(), Status::Ok);
    }

    #[test]
    fn files_are_found_by_their_one_segment() {
        for asset in &ASSETS {
            let request = get(&format!("/{}?x", asset.name), "");
            assert_eq!(Asset::find(&request.path), Some(asset));
        }
        for target in ["/page/app.js", "/app.js/", "//", "/index.html", "/APP.js"] {
            assert_eq!(Asset::find(&get(target, "").path), None, "{target}");
        }
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        for asset in &ASSETS {
            for scheme in ["http:", "https:", "ws:", "wss:", "data:"] {
                for (at, _) in asset.contents.match_indices(&format!("{scheme}//")) {
                    // A namespace is a name, and the page says how its own address reads.
                    let rest = &asset.contents[at..];
                    let is_name = rest.starts_with("http://www.w3.org/2000/svg")
                        || rest.starts_with("http://localhost.");
                    assert!(is_name, "{}: {}", asset.name, &rest[..rest.len().min(60)]);
                }
            }
            assert!(!asset.contents.contains("@import"), "{}", asset.name);
            assert!(!asset.contents.contains("url("), "{}", asset.name);
        }
        // What the policy would refuse: inline scripts, handlers and styles.
        for page in ["", "call"].map(contents) {
            for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
                assert!(!page.contains(inline), "{inline}");
            }
            assert_eq!(page.matches("<script").count(), 1);
        }
    }

    #[test]
    fn every_file_the_page_names_is_there() {
        for asset in &ASSETS {
            let names = |before: &'static str, after: char| {
                let parts = asset.contents.split(before).skip(1);
                parts.map(move |part| part.split(after).next().unwrap_or_default())
            };
            let imports = names("from './", '\'').chain(names("new URL('./", '\''));
            let links = names("<link rel=\"stylesheet\" href=\"/", '"')
                .chain(names("src=\"/", '"'))
                .chain(names("rel=\"icon\" href=\"/", '"'));
            for name in imports.chain(links) {
                assert!(ASSETS.iter().any(|found| found.name == name), "{name}");
            }
        }
    }

    #[test]
    fn every_element_a_script_looks_for_is_in_its_page() {
        for (page, script) in [("", "app.js"), ("", "health.js"), ("call", "call.js")] {
            let (page, script) = (contents(page), contents(script));
            let mut found = 0;
            for part in script.split("$('").skip(1) {
                let id = part.split('\'').next().unwrap_or_default();
                assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
                found += 1;
            }
            assert!(found > 10);
            for part in page.split("<use href=\"#").skip(1) {
                let id = part.split('"').next().unwrap_or_default();
                assert!(page.contains(&format!("<symbol id=\"{id}\"")), "{id}");
            }
            for label in page.split("<button ").skip(1) {
                let button = label.split("</button>").next().unwrap_or_default();
                let is_named = button.contains("aria-label=") || !button.trim_end().ends_with('>');
                assert!(is_named, "{button}");
            }
        }
    }

    /// What tests in a real browser hold on to.
    #[test]
    fn test_hooks_and_deep_links_stay() {
        let all: String = ASSETS.iter().map(|asset| asset.contents).collect();
        for hook in [
            "data-testid=\"player-video\"",
            "data-testid=\"publish-run\"",
            "data-testid=\"unmute\"",
            "data-testid=\"stop\"",
            "dataset.testid = 'stream'",
            "window.gatewayStats = {",
            "first_picture_ms",
            "parameters.get('play')",
            "parameters.get('publish')",
            "parameters.get('source')",
            "parameters.get('token')",
        ] {
            assert!(all.contains(hook), "{hook}");
        }
    }
}
