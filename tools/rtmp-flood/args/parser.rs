//! [`Parser`]: one argument after the other into a [`Plan`].

use std::time::Duration;

use super::units::{bit_rate, duration, number, part, positive, rate};
use super::{BIT_RATES_MAX, Bounds, Group, Impairment, Plan, Role};

/// A plan that is being read.
pub(super) struct Parser {
    pub(super) plan: Plan,
    /// What new groups begin with, and what the options change.
    template: Group,
    /// Groups with an `after` of their own.
    with_after: Vec<bool>,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            plan: Plan {
                groups: Vec::new(),
                duration: Duration::from_secs(10),
                settle: Duration::from_secs(1),
                connect_timeout: Duration::from_secs(10),
                file: None,
                impairment: Impairment::default(),
                seed: 1,
                pid: None,
                json: None,
                quiet: false,
                bounds: Bounds::default(),
            },
            template: Group {
                role: Role::Play,
                url: String::new(),
                count: 1,
                ramp_per_second: 200.0,
                churn_per_second: 0.0,
                bit_rates: Vec::new(),
                after: Duration::ZERO,
                late: false,
            },
            with_after: Vec::new(),
        }
    }

    pub(super) fn group(&mut self, role: Role, count: u32, url: &str) -> Result<(), String> {
        if !url.starts_with(role.scheme()) {
            return Err(format!(
                "{role} needs a URL with {}, not {url:?}",
                role.scheme()
            ));
        }
        if count == 0 {
            return Err("a count of 0".into());
        }
        self.plan.groups.push(Group {
            role,
            count,
            url: url.to_owned(),
            ..self.template.clone()
        });
        self.with_after.push(false);
        Ok(())
    }

    /// `COUNT@URL key=value ...`
    pub(super) fn mixed_group(&mut self, role: Role, text: &str) -> Result<(), String> {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let (count, url) = first
            .split_once('@')
            .ok_or_else(|| format!("--{role} needs COUNT@URL, not {first:?}"))?;
        self.group(role, number(count)?, url)?;
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("{word:?} is no key=value"))?;
            if !self.client_option(self.plan.groups.len() - 1, key, value)? {
                return Err(format!("unknown key {key:?}"));
            }
        }
        Ok(())
    }

    /// What may differ between groups; answers whether it was such a key.
    fn client_option(&mut self, index: usize, key: &str, value: &str) -> Result<bool, String> {
        let group = &mut self.plan.groups[index];
        match key {
            "ramp" => group.ramp_per_second = positive(rate(value)?, "a ramp of 0")?,
            "churn" => group.churn_per_second = rate(value)?,
            "bitrate" => {
                let rates: Result<_, _> = value.split(',').map(bit_rate).collect();
                group.bit_rates = rates?;
                if group.bit_rates.len() > BIT_RATES_MAX {
                    return Err(format!("more than {BIT_RATES_MAX} bit rates"));
                }
            }
            "after" => {
                group.after = duration(value)?;
                group.late = true;
                self.with_after[index] = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    pub(super) fn option<'a>(
        &mut self,
        name: &str,
        value: &mut impl FnMut() -> Result<&'a str, String>,
    ) -> Result<(), String> {
        let plan = &mut self.plan;
        match name {
            "count" => {
                let count: u32 = number(value()?)?;
                match &mut plan.groups[..] {
                    [group] if count > 0 => group.count = count,
                    [_] => return Err("a count of 0".into()),
                    _ => return Err("--count: in mixed the count stands before the URL".into()),
                }
            }
            "ramp" | "churn" | "after" | "bitrate" => {
                let value = value()?;
                match plan.groups.len() {
                    0 => {
                        // For the groups to come: read with a group that is thrown away.
                        self.plan.groups.push(self.template.clone());
                        self.with_after.push(false);
                        self.client_option(0, name, value)?;
                        self.template = self.plan.groups.pop().expect("just pushed");
                        self.with_after.pop();
                    }
                    count => {
                        for index in 0..count {
                            self.client_option(index, name, value)?;
                        }
                    }
                }
            }
            "duration" => plan.duration = duration(value()?)?,
            "settle" => plan.settle = duration(value()?)?,
            "connect-timeout" => plan.connect_timeout = duration(value()?)?,
            "file" => plan.file = Some(value()?.into()),
            "loss" => plan.impairment.loss = part(value()?)?,
            "delay" => plan.impairment.delay = duration(value()?)?,
            "jitter" => plan.impairment.jitter = duration(value()?)?,
            "seed" => plan.seed = number(value()?)?,
            "pid" => plan.pid = Some(number(value()?)?),
            "json" => plan.json = Some(value()?.into()),
            "max-p50" => plan.bounds.p50 = Some(duration(value()?)?),
            "max-p99" => plan.bounds.p99 = Some(duration(value()?)?),
            "max-latency" => plan.bounds.latency = Some(duration(value()?)?),
            "max-setup" => plan.bounds.setup = Some(duration(value()?)?),
            "max-first-key" => plan.bounds.first_key = Some(duration(value()?)?),
            "max-cpu" => plan.bounds.cpu = Some(part(value()?)?),
            "max-failed" => plan.bounds.failed = number(value()?)?,
            "max-lost" => plan.bounds.lost = number(value()?)?,
            _ => return Err(format!("unknown option --{name}")),
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Plan, String> {
        let plan = &mut self.plan;
        if plan.groups.is_empty() {
            return Err("mixed needs groups, as in --play 100@rtmp://localhost/live/s".into());
        }
        if plan.bounds.cpu.is_some() && plan.pid.is_none() {
            return Err("--max-cpu needs --pid".into());
        }
        if plan.duration.is_zero() {
            return Err("a duration of 0".into());
        }
        // Players wait for the publishers of the same run.
        if plan.groups.iter().any(|group| group.role.sends()) {
            for (group, with_after) in plan.groups.iter_mut().zip(self.with_after) {
                if !group.role.sends() && !with_after && group.after.is_zero() {
                    group.after = PLAYERS_AFTER;
                }
            }
        }
        Ok(self.plan)
    }
}

/// When players begin in a run with publishers: these are up by then.
const PLAYERS_AFTER: Duration = Duration::from_secs(1);
