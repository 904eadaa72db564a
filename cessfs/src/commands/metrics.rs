//! `cessfs metrics NAME`.

use super::{Context, print_json};
use crate::control::Status;
use crate::control::client::{self, Client};
use crate::exit::{Exit, Failure};
use crate::home::VolumeName;
use crate::output;
use crate::timings::StageTimes;
use cessfs_sync::stages::bucket_end_ns;
use clap::Args;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

/// Print a mounted volume's numbers for Prometheus
///
/// OpenMetrics text: a histogram of every stage's times (`cessfs_stage_seconds`) and what `status` tells. Nothing listens on
/// a port; the numbers come over the control socket. With node_exporter's textfile collector a timer brings them in.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  cessfs metrics photos
  cessfs metrics photos > /var/lib/node_exporter/cessfs.prom.new && mv /var/lib/node_exporter/cessfs.prom{.new,}
  cessfs metrics photos --json | jq '.[] | select(.stage == \"commit\")'")]
pub struct MetricsArgs {
    /// The volume
    name: VolumeName,
}

/// Asks the daemon and prints.
///
/// # Errors
/// [`Exit::NotMounted`].
pub fn run(args: &MetricsArgs, context: &Context) -> Result<(), Failure> {
    let volume = context.home.existing(&args.name)?;
    let (stages, status) = client::timings(&mut Client::connect(&volume)?)?;
    if context.json {
        print_json(&stages);
        return Ok(());
    }
    output::text(&text(stages, status)?);
    Ok(())
}

fn text(stages: Vec<StageTimes>, status: Status) -> Result<String, Failure> {
    let volume = ("volume".into(), status.name.clone().into());
    let mut registry = Registry::with_prefix_and_labels("cessfs", [volume].into_iter());
    registry.register_collector(Box::new(Numbers { stages, status }));
    let mut out = String::new();
    encode(&mut out, &registry).map_err(|e| Failure::new(Exit::Failed, format!("cannot write metrics: {e}")))?;
    Ok(out)
}

/// What one answer of the daemon says.
#[derive(Debug)]
struct Numbers {
    stages: Vec<StageTimes>,
    status: Status,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let help = "Time of one span of a stage of the daemon's work";
        let mut histograms = encoder.encode_descriptor("stage", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for times in &self.stages {
            let labels = [("layer", times.layer.as_str()), ("stage", times.stage.as_str())];
            let seconds = |i| bucket_end_ns(i).map_or(f64::INFINITY, |end| end as f64 / 1e9);
            let buckets: Vec<(f64, u64)> = times
                .buckets
                .iter()
                .enumerate()
                .map(|(i, n)| (seconds(i), *n))
                .collect();
            histograms.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                times.total_ns as f64 / 1e9,
                times.count,
                &buckets,
                None,
            )?;
        }
        let status = &self.status;
        for (name, help, unit, value) in [
            (
                "dirty",
                "Changed bytes not yet in a pack",
                Some(&Unit::Bytes),
                status.dirty_bytes,
            ),
            (
                "unsent",
                "Bytes in packs not confirmed yet",
                Some(&Unit::Bytes),
                status.unsent_bytes,
            ),
            (
                "unsent_bound",
                "Unsent bytes from which on changes stay in the cache",
                Some(&Unit::Bytes),
                status.unsent_bound_bytes,
            ),
            (
                "cache",
                "Bytes of the cache on disk",
                Some(&Unit::Bytes),
                status.cache_bytes,
            ),
            (
                "cache_bound",
                "Bytes that the cache may take",
                Some(&Unit::Bytes),
                status.cache_bound_bytes,
            ),
            (
                "trash",
                "Bytes of deleted files that can be had back",
                Some(&Unit::Bytes),
                status.trash_bytes,
            ),
            ("files", "Inodes", None, status.files),
            ("errors", "Troubles that status tells", None, status.errors.len() as u64),
            (
                "blocked",
                "1 while the upload waits for something",
                None,
                u64::from(status.blocked.is_some()),
            ),
        ] {
            encoder
                .encode_descriptor(name, help, unit, MetricType::Gauge)?
                .encode_gauge(&(value as f64))?;
        }
        let mut packs = encoder.encode_descriptor("packs", "Packs by state", None, MetricType::Gauge)?;
        for (state, count) in &status.packs {
            packs
                .encode_family(&[("state", state.as_str())])?
                .encode_gauge(&(*count as f64))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cessfs_sync::stages::BUCKETS;

    #[test]
    fn every_number_is_told_with_its_labels() {
        let mut buckets = vec![0; BUCKETS];
        (buckets[0], buckets[3], buckets[BUCKETS - 1]) = (2, 1, 1);
        let stage = StageTimes {
            layer: "store".into(),
            stage: "commit".into(),
            count: 4,
            total_ns: 1_500_000_000,
            buckets,
        };
        let status = Status {
            name: "photos".into(),
            dirty_bytes: 4096,
            packs: [("confirmed".to_owned(), 7)].into(),
            ..Status::default()
        };
        let text = text(vec![stage], status).unwrap();
        for line in [
            "# TYPE cessfs_stage_seconds histogram",
            r#"cessfs_stage_seconds_count{volume="photos",layer="store",stage="commit"} 4"#,
            r#"cessfs_stage_seconds_sum{volume="photos",layer="store",stage="commit"} 1.5"#,
            r#"cessfs_stage_seconds_bucket{volume="photos",le="5.12e-7",layer="store",stage="commit"} 2"#,
            r#"cessfs_stage_seconds_bucket{volume="photos",le="+Inf",layer="store",stage="commit"} 4"#,
            r#"cessfs_dirty_bytes{volume="photos"} 4096.0"#,
            r#"cessfs_packs{volume="photos",state="confirmed"} 7.0"#,
            "# EOF",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
