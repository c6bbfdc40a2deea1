use metron_llm::hub::{self, HubEnvironment};
use metron_schedulers::Registry;

use crate::args::ListArgs;
use crate::exit::{Failure, Kind, OrFail};
use crate::print;

/// `metron models`
pub(crate) fn models(args: &ListArgs) -> Result<(), Failure> {
    let statuses = hub::list(&HubEnvironment::from_env());
    if args.json {
        let json: Vec<serde_json::Value> = statuses
            .iter()
            .map(|status| {
                let card = status.card;
                serde_json::json!({
                    "id": card.id,
                    "name": card.name,
                    "architecture": card.architecture(),
                    "parameters": card.parameters,
                    "licence": card.licence,
                    "artifacts": card.artifacts.iter().map(|artifact| serde_json::json!({
                        "source": artifact.source.to_string(),
                        "format": artifact.format,
                        "dtype": artifact.dtype,
                        "bytes": artifact.bytes,
                        "sha256": artifact.sha256,
                    })).collect::<Vec<_>>(),
                    "on_disk": status.on_disk.iter().map(|copy| &copy.path).collect::<Vec<_>>(),
                })
            })
            .collect();
        print::result(&serde_json::to_string_pretty(&json).or_fail(Kind::Internal)?);
        return Ok(());
    }
    let mut rows = vec![
        ["id", "architecture", "parameters", "weights", "licence", "source", "on disk"]
            .map(ToOwned::to_owned),
    ];
    for status in &statuses {
        for artifact in &status.card.artifacts {
            let is_here = status.on_disk.iter().any(|copy| copy.artifact == artifact);
            rows.push([
                status.card.id.clone(),
                status.card.architecture().trim_end_matches("ForCausalLM").to_owned(),
                format!("{:.2} B", status.card.parameters as f64 / 1e9),
                format!(
                    "{:.2} GB {} {}",
                    artifact.bytes as f64 / 1e9,
                    artifact.format,
                    artifact.dtype
                ),
                status.card.licence.clone(),
                artifact.source.to_string(),
                if is_here { "yes" } else { "no" }.to_owned(),
            ]);
        }
    }
    print::result(&metron_report::columns(&rows));
    Ok(())
}

/// `metron schedulers`
pub(crate) fn schedulers(args: &ListArgs, registry: &Registry) -> Result<(), Failure> {
    if args.json {
        let json: Vec<serde_json::Value> = registry
            .list()
            .map(|(names, about)| serde_json::json!({ "names": names, "about": about }))
            .collect();
        print::result(&serde_json::to_string_pretty(&json).or_fail(Kind::Internal)?);
        return Ok(());
    }
    let rows: Vec<[String; 2]> =
        registry.list().map(|(names, about)| [names.join(", "), about.to_owned()]).collect();
    print::result(&metron_report::columns(&rows));
    Ok(())
}
