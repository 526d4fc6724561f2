//! `worker evaluate`: a data set with truths, every method, the paper's tables and figures. No server.

use std::{collections::BTreeMap, io::Write};

use anyhow::anyhow;
use evaluation::{
    Row,
    datasets::{Case, LocalFolder, cases},
};
use segmenter::{Segmenter, sam::Architecture, sha256};

use super::segment::load_model;
use crate::{
    cli::EvaluateArgs,
    errors::Failure,
    evaluate::{
        case::{CaseError, Questions, evaluate_case},
        figures::SHOWN_PER_GROUP,
        folder::{Begun, Folder},
        images::Images,
        progress::Progress,
        results::{Results, Subject, write_results},
    },
    receipt::VERSION,
};

/// A case, and its place in the data set's whole list.
type Numbered<'a> = (usize, &'a Case);

/// Evaluates what is not evaluated yet, and writes the tables once nothing is missing.
pub fn evaluate(arguments: &EvaluateArgs) -> Result<(), Failure> {
    let questions = questions(arguments).map_err(Failure::bad_input)?;
    let options = arguments.options();
    let limits = arguments.limits.limits();
    let data = LocalFolder::new(&arguments.data.folder, limits.bytes);
    let all = cases(arguments.data.kind, &data, &options)
        .map_err(|error| Failure::bad_input(anyhow!(error).context(format!("--data {}", arguments.data.folder.display()))))?;
    let mut segmenter = load_model(&arguments.model).map_err(Failure::bad_input)?;
    let begun = begun(arguments, &questions, &all, &segmenter);
    let folder = Folder::begin(&arguments.out, &begun).map_err(Failure::bad_input)?;
    let mut images = Images::new(data, limits);

    let (limited, shown) = (first_of_groups(&all, arguments.limit()), first_of_groups(&all, Some(SHOWN_PER_GROUP)));
    let is_shown = |index: usize| shown.iter().any(|&(shown, _)| shown == index);
    let is_ours = |&(index, _): &Numbered<'_>| arguments.shard.is_none_or(|shard| shard.has(index));
    let ours: Vec<Numbered<'_>> = limited.iter().copied().filter(is_ours).collect();
    evaluate_cases(&mut segmenter, &mut images, &folder, &questions, &ours, &is_shown)?;

    let results = results(&folder, &questions, &limited)?;
    if let Some(&(_, open)) = results.open.first() {
        let count = results.open.len();
        eprintln!(
            "{count} of {} images are not done, the first of them {}; the tables are written when all are",
            limited.len(),
            open.id
        );
        return Ok(());
    }
    let shown: Vec<Numbered<'_>> = limited.iter().copied().filter(|&(index, _)| is_shown(index)).collect();
    let (kind, architecture) = (arguments.data.kind, architecture(&segmenter));
    let subject = Subject { kind, architecture, questions: &questions, cases: &limited, shown: &shown };
    let summary = write_results(&folder, &mut images, &subject, &results)?;
    let mut stdout = std::io::stdout().lock();
    let printed = if arguments.json { writeln!(stdout, "{}", summary.json) } else { write!(stdout, "{}", summary.text) };
    printed.map_err(anyhow::Error::from)?;
    match results.problems.first() {
        None => Ok(()),
        Some((id, reason)) => Err(Failure::Failed(anyhow!(
            "{} of {} images have no scores, {id} because: {reason}; the table names all of them",
            results.problems.len(),
            limited.len(),
        ))),
    }
}

fn questions(arguments: &EvaluateArgs) -> anyhow::Result<Questions> {
    Ok(Questions {
        settings: arguments.settings(),
        repeats: arguments.repeats,
        seed: arguments.seed,
        methods: arguments.methods()?,
        parameters: arguments.parameters.checked()?,
        trace: arguments.trace,
    })
}

fn begun(arguments: &EvaluateArgs, questions: &Questions, all: &[Case], segmenter: &Segmenter) -> Begun {
    let Questions { settings, repeats, seed, methods, parameters, trace } = questions;
    // The list decides which points are drawn on what; Debug names every field of it.
    let list = sha256(format!("{all:?}").as_bytes());
    Begun {
        version: VERSION.into(),
        data: arguments.data.kind.to_string(),
        cases: (all.len(), list),
        checkpoint_sha256: segmenter.checkpoint_sha256().into(),
        device: arguments.model.compute.compute().to_string(),
        points: settings.clone(),
        repeats: *repeats,
        seed: *seed,
        methods: methods.clone(),
        parameters: parameters.clone(),
        trace: *trace,
    }
}

/// A published size of SAM by its name, another by its sizes.
fn architecture(segmenter: &Segmenter) -> String {
    let Architecture { image_size, dim, windows, .. } = segmenter.architecture();
    match (image_size, dim, windows.len()) {
        (1024, 768, 12) => "vit_b".into(),
        (1024, 1024, 24) => "vit_l".into(),
        (1024, 1280, 32) => "vit_h".into(),
        (_, _, blocks) => format!("a SAM of {blocks} blocks of {dim} at {image_size} pixels"),
    }
}

/// The first cases of each group, with their places in the whole list.
fn first_of_groups(all: &[Case], limit: Option<usize>) -> Vec<Numbered<'_>> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let mut first = Vec::new();
    for (index, case) in all.iter().enumerate() {
        let count = counts.entry(&case.group).or_default();
        *count += 1;
        if limit.is_none_or(|limit| *count <= limit) {
            first.push((index, case));
        }
    }
    first
}

fn evaluate_cases(
    segmenter: &mut Segmenter,
    images: &mut Images,
    folder: &Folder,
    questions: &Questions,
    ours: &[Numbered<'_>],
    is_shown: &dyn Fn(usize) -> bool,
) -> Result<(), Failure> {
    let mut open = Vec::new();
    for &(index, case) in ours {
        let of_case = questions.open(case, &folder.of_case(index, case).known().map_err(Failure::bad_input)?);
        if !of_case.is_empty() {
            open.push((index, case, of_case));
        }
    }
    let methods = open.iter().flat_map(|(_, _, questions)| questions.iter().map(|question| question.method));
    let mut progress = Progress::new(open.len(), methods, questions.parameters.steps);
    for (number, (index, case, of_case)) in (1..).zip(&open) {
        progress.begin_case(number, &case.id);
        let files = folder.of_case(*index, case);
        let outcome = evaluate_case(segmenter, images, case, &files, questions, is_shown(*index), &mut progress);
        match outcome {
            Ok(None) => progress.end_case(number, &case.id, &format!("{} answers", of_case.len())),
            Ok(Some(problem)) => progress.end_case(number, &case.id, &format!("no scores: {problem}")),
            Err(error @ CaseError::Segment { .. }) => return Err(Failure::Failed(error.into())),
            Err(CaseError::Files(error)) => return Err(Failure::BadInput(error)),
        }
    }
    progress.finish();
    Ok(())
}

fn results<'a>(folder: &Folder, questions: &Questions, limited: &[Numbered<'a>]) -> anyhow::Result<Results<'a>> {
    let mut results = Results { rows: vec![], problems: vec![], open: vec![] };
    for &(index, case) in limited {
        let known = folder.of_case(index, case).known()?;
        let open = questions.open(case, &known);
        match known.problem() {
            Some(problem) => results.problems.push((case.id.clone(), problem.to_owned())),
            None if !open.is_empty() => results.open.push((index, case)),
            None => {}
        }
        let rows: Vec<Row> = known.rows().cloned().collect();
        results.rows.extend(rows);
    }
    Ok(results)
}
