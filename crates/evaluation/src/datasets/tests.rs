use image::{GrayImage, ImageFormat};

use super::{
    testing::{folder, label_map, nifti},
    *,
};

const PNG: ImageFormat = ImageFormat::Png;
const OUTLINES: &[u8] = br#"<Annotations><Annotation><Regions><Region><Vertices>
    <Vertex X="1" Y="0"/><Vertex X="3" Y="0"/><Vertex X="3" Y="2"/><Vertex X="1" Y="2"/>
    </Vertices></Region></Regions></Annotation></Annotations>"#;

fn cases_of(kind: Kind, files: &[(&str, Vec<u8>)], options: &Options) -> Result<Vec<Case>, DatasetError> {
    let (_root, files) = folder(files);
    cases(kind, &files, options)
}

fn refusal(kind: Kind, files: &[(&str, Vec<u8>)], options: &Options) -> String {
    cases_of(kind, files, options).unwrap_err().to_string()
}

/// Id, group and label of each case.
fn summary(cases: &[Case]) -> Vec<(&str, &str, Option<u32>)> {
    cases.iter().map(|case| (case.id.as_str(), case.group.as_str(), case.label)).collect()
}

fn empty(name: &str) -> (&str, Vec<u8>) {
    (name, Vec::new())
}

/// Of 20 x 10 pixels: 100 of label 1, one of label 2, 50 of label 7, the rest background.
fn three_labels() -> Vec<u8> {
    let labels: Vec<u8> = (0..200).map(|index| [1, 1, 7, 0][index / 50]).collect();
    label_map(PNG, 20, 10, &[&labels[..199], &[2]].concat())
}

#[test]
fn a_folder_pairs_images_with_truths_at_any_depth_and_leaves_the_rest() {
    let files =
        ["b.jpg", "b_mask.png", "he/x/a.TIF", "he/x/a_labels.tif", "he/c.png", "scan.nii.gz", "readme.txt", "d_labels.png"];
    let cases = cases_of(Kind::Folder, &files.map(empty), &Options::default()).unwrap();
    assert_eq!(summary(&cases), [("b", "images", None), ("he/x/a", "he/x", None)]);
    assert_eq!((cases[1].image.as_str(), cases[1].truth.as_str()), ("he/x/a.TIF", "he/x/a_labels.tif"));
}

#[test]
fn each_label_of_a_folder_is_a_case_if_it_is_large_enough_and_has_the_name_beside_it() {
    let names = br#"{"1": {"name": "liver", "voxels": 9}, "7": "spleen"}"#.to_vec();
    let files = [empty("ct/a.png"), ("ct/a_labels.png", three_labels()), ("ct/labels.json", names)];
    let options = |labels, least_pixels| Options { labels, least_pixels, ..Options::default() };
    let each = cases_of(Kind::Folder, &files, &options(Labels::Each, Some(2))).unwrap();
    assert_eq!(summary(&each), [("ct/a_label_1", "liver", Some(1)), ("ct/a_label_7", "spleen", Some(7))]);
    // One pixel of 200 is 0.5 %.
    let each = cases_of(Kind::Folder, &files, &options(Labels::Each, None)).unwrap();
    assert_eq!(each.len(), 3);
    assert_eq!(summary(&each)[1], ("ct/a_label_2", "label 2", Some(2)));
    let only = cases_of(Kind::Folder, &files[..2], &options(Labels::Only(vec![7, 9]), None)).unwrap();
    assert_eq!(summary(&only), [("ct/a_label_7", "ct", Some(7))]);
}

#[test]
fn a_folder_that_does_not_fit_is_refused_with_what_is_there() {
    let error = refusal(Kind::Folder, &["a.png", "b.png", "b_masks.png"].map(empty), &Options::default());
    assert!(error.starts_with("no case of kind folder found: expected images <id>.png"), "{error}");
    assert!(error.ends_with("found 3 files: a.png, b.png, b_masks.png"), "{error}");
    assert!(refusal(Kind::Folder, &[], &Options::default()).ends_with("found no file"));
    let error = refusal(Kind::Folder, &["a.png", "a.jpg", "a_mask.png"].map(empty), &Options::default());
    assert_eq!(error, "a.jpg and a.png would both be the image of one case; take one of them away");
    let error = refusal(Kind::Folder, &["a.png", "a_labels.png", "a_mask.png"].map(empty), &Options::default());
    assert!(error.contains("both be the truth"), "{error}");
    let each = Options { labels: Labels::Each, ..Options::default() };
    let error = cases_of(Kind::Folder, &["a.png", "a_labels.png"].map(empty), &each).unwrap_err();
    assert!(error.to_string().starts_with("the truth a_labels.png cannot be read: "), "{error}");
    assert!(std::error::Error::source(&error).is_none(), "said once, and not again by who shows all causes");
    let files = [empty("a.png"), ("a_labels.png", three_labels()), ("labels.json", b"[]".to_vec())];
    assert!(refusal(Kind::Folder, &files, &each).starts_with("labels.json cannot be read: "));
}

#[test]
fn monuseg_is_read_as_training_and_test_images_come() {
    let files = [
        "MoNuSeg 2018 Training Data/Annotations/TCGA-A7.xml",
        "MoNuSeg 2018 Training Data/Tissue Images/TCGA-A7.tif",
        "MoNuSegTestData/TCGA-2Z.tif",
        "MoNuSegTestData/TCGA-2Z.xml",
        "MoNuSegTestData/._TCGA-2Z.xml",
        "__MACOSX/TCGA-2Z.xml",
    ];
    let test = cases_of(Kind::MonuSeg, &files.map(empty), &Options::default()).unwrap();
    assert_eq!(summary(&test), [("TCGA-2Z", "MoNuSeg", None)]);
    let train = cases_of(Kind::MonuSeg, &files.map(empty), &Options { split: Split::Train, ..Options::default() }).unwrap();
    assert_eq!(train[0].image, "MoNuSeg 2018 Training Data/Tissue Images/TCGA-A7.tif");
    let alone = ["Tissue Images/a.tif", "Annotations/a.xml"].map(empty);
    let of = |split, folder_name: &str| Options { split, folder_name: folder_name.into(), ..Options::default() };
    assert_eq!(cases_of(Kind::MonuSeg, &alone, &of(Split::Train, "MoNuSeg 2018 Training Data")).unwrap().len(), 1);
    assert!(cases_of(Kind::MonuSeg, &alone, &of(Split::Test, "MoNuSeg 2018 Training Data")).is_err());
    let at_the_root = ["Annotations/a.xml", "Tissue Images/a.tif"];
    assert_eq!(cases_of(Kind::MonuSeg, &at_the_root.map(empty), &Options::default()).unwrap().len(), 1);

    let error = refusal(Kind::MonuSeg, &["Annotations/a.xml", "Tissue Images/b.tif"].map(empty), &Options::default());
    assert_eq!(error, "Annotations/a.xml has no image beside it, expected Tissue Images/a.tif; is the download complete?");
    assert!(refusal(Kind::MonuSeg, &["a.tif", "a.png"].map(empty), &Options::default()).contains("expected <id>.xml beside"));
}

#[test]
fn glas_has_its_test_images_by_default() {
    let files = ["testA_1", "testB_2", "train_3"].map(|id| [format!("W/{id}.bmp"), format!("W/{id}_anno.bmp")]).concat();
    let mut files: Vec<(&str, Vec<u8>)> = files.iter().map(|name| empty(name)).collect();
    files.push(empty("W/Grade.csv"));
    let test = cases_of(Kind::Glas, &files, &Options::default()).unwrap();
    assert_eq!(summary(&test), [("testA_1", "GlaS", None), ("testB_2", "GlaS", None)]);
    let train = cases_of(Kind::Glas, &files, &Options { split: Split::Train, ..Options::default() }).unwrap();
    assert_eq!((train.len(), train[0].truth.as_str()), (1, "W/train_3_anno.bmp"));

    assert!(refusal(Kind::Glas, &[empty("testA_1_anno.bmp")], &Options::default()).contains("expected testA_1.bmp"));
    let twice = ["a/testA_1.bmp", "a/testA_1_anno.bmp", "b/testA_1.bmp", "b/testA_1_anno.bmp"];
    let error = refusal(Kind::Glas, &twice.map(empty), &Options::default());
    assert_eq!(error, "a/testA_1_anno.bmp and b/testA_1_anno.bmp would both be the truth of one case; take one of them away");
    assert!(refusal(Kind::Glas, &files[4..], &Options::default()).contains("no case of kind glas found"));
}

/// Five slices of 2 x 2 pixels; the liver (6) has 1, 2, 3, 4 and 2 pixels, the label 15 the others, but for a spleen (1) of one.
fn volume() -> Vec<u8> {
    nifti([2, 2, 5], &[6, 15, 15, 15, 6, 6, 15, 15, 6, 6, 6, 1, 6, 6, 6, 6, 6, 6, 15, 15])
}

#[test]
fn amos22_has_a_case_for_each_organ_on_each_slice_that_shows_enough_of_it() {
    let files = [
        ("amos22/labelsVa/amos_0008.nii.gz", volume()),
        empty("amos22/imagesVa/amos_0008.nii.gz"),
        ("amos22/labelsVa/amos_0507.nii.gz", volume()),
        empty("amos22/labelsTr/amos_0001.nii.gz"),
    ];
    let options = |least_pixels, most_slices| Options { least_pixels: Some(least_pixels), most_slices, ..Options::default() };
    let cases = cases_of(Kind::Amos22, &files, &options(2, None)).unwrap();
    let slices: Vec<Option<u32>> = cases.iter().map(|case| case.view.slice).collect();
    assert_eq!(slices, [Some(1), Some(2), Some(3), Some(4)]);
    assert_eq!(summary(&cases)[0], ("amos_0008_slice_001_liver", "liver", Some(6)));
    assert_eq!(cases[0].image, "amos22/imagesVa/amos_0008.nii.gz");
    assert_eq!(cases[0].view.window, Some(Window::new(40.0, 400.0).unwrap()));

    let cases = cases_of(Kind::Amos22, &files, &options(1, Some(2))).unwrap();
    let chosen: Vec<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(chosen, ["amos_0008_slice_001_liver", "amos_0008_slice_002_spleen", "amos_0008_slice_003_liver"]);

    assert!(refusal(Kind::Amos22, &files[..1], &Options::default()).contains("expected amos22/imagesVa/amos_0008.nii.gz"));
    assert!(refusal(Kind::Amos22, &files[2..], &Options::default()).contains("at most 500 (CT)"));
    let damaged = [("labelsVa/amos_0008.nii.gz", b"NIfTI".to_vec()), empty("imagesVa/amos_0008.nii.gz")];
    assert!(
        refusal(Kind::Amos22, &damaged, &Options::default()).starts_with("the truth labelsVa/amos_0008.nii.gz cannot be read")
    );
}

fn case(label: Option<u32>, slice: Option<u32>) -> Case {
    let view = View { slice, window: None };
    Case { id: "a".into(), group: "g".into(), image: "a.png".into(), truth: "a_labels.png".into(), label, view }
}

fn truth_of(bytes: &[u8], name: &str, case: &Case, size: (u32, u32)) -> Result<Vec<u8>, String> {
    truth(bytes, name, case, size, &ImageLimits::default()).map(GrayImage::into_raw).map_err(|error| error.to_string())
}

#[test]
fn a_truth_is_255_where_its_label_is() {
    for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff] {
        let map = label_map(format, 2, 2, &[0, 3, 5, 3]);
        assert_eq!(truth_of(&map, "a_labels", &case(None, None), (2, 2)).unwrap(), [0, 255, 255, 255], "{format:?}");
        assert_eq!(truth_of(&map, "a_labels", &case(Some(3), None), (2, 2)).unwrap(), [0, 255, 0, 255], "{format:?}");
    }
    let liver = truth_of(&volume(), "a.nii.gz", &case(Some(6), Some(2)), (2, 2)).unwrap();
    assert_eq!(liver.into_iter().map(u32::from).sum::<u32>(), 3 * 255);
    assert_eq!(truth_of(OUTLINES, "a.xml", &case(None, None), (4, 2)).unwrap(), [0, 255, 255, 0, 0, 255, 255, 0]);
}

#[test]
fn a_truth_that_does_not_fit_is_refused_by_name() {
    let map = label_map(PNG, 2, 2, &[0, 3, 5, 3]);
    let error = truth_of(&map, "a.png", &case(None, None), (3, 2)).unwrap_err();
    assert_eq!(error, "the truth a.png is 2 x 2 pixels, but its image is 3 x 2");
    let error = truth_of(&map, "a.png", &case(Some(4), None), (2, 2)).unwrap_err();
    assert_eq!(error, "the truth a.png has no foreground: label 4 does not occur, its labels are 0, 3, 5");
    let error = truth_of(&label_map(PNG, 2, 2, &[0; 4]), "a.png", &case(None, None), (2, 2)).unwrap_err();
    assert!(error.ends_with("every pixel has label 0"), "{error}");
    let error = truth_of(OUTLINES, "a.xml", &case(None, None), (1, 1)).unwrap_err();
    assert!(error.ends_with("no outline has a pixel of the image inside"), "{error}");
    assert!(truth_of(b"<Annotations>", "a.xml", &case(None, None), (1, 1)).unwrap_err().starts_with("a.xml cannot be read: "));
    assert!(truth_of(b"GIF89a", "a.png", &case(None, None), (1, 1)).unwrap_err().starts_with("the truth a.png cannot be read: "));
}

#[test]
fn every_truth_of_a_folder_of_real_images_fits_its_image() {
    let Some(folder) = std::env::var_os("DOTMASK_DEV_DATA") else {
        eprintln!("skipped: DOTMASK_DEV_DATA names no folder of real images");
        return;
    };
    let (files, limits) = (LocalFolder::new(folder, 1 << 30), ImageLimits::default());
    for labels in [Labels::Together, Labels::Each] {
        let cases = cases(Kind::Folder, &files, &Options { labels, ..Options::default() }).unwrap();
        eprintln!("{} cases", cases.len());
        for case in &cases {
            let image = images::decode(&files.read(&case.image).unwrap(), &case.view, &limits).unwrap();
            truth(&files.read(&case.truth).unwrap(), &case.truth, case, image.rgb.dimensions(), &limits).unwrap();
        }
    }
}

#[test]
fn every_kind_is_read_by_its_name() {
    for kind in Kind::ALL {
        assert_eq!(kind.name().parse(), Ok(kind));
    }
    assert!("amos".parse::<Kind>().unwrap_err().to_string().contains("expected folder, monuseg"));
}

#[test]
fn labels_and_splits_are_read_as_on_a_command_line() {
    assert_eq!("together".parse(), Ok(Labels::Together));
    assert_eq!("each".parse(), Ok(Labels::Each));
    assert_eq!("1, 6".parse(), Ok(Labels::Only(vec![1, 6])));
    for text in ["liver", "1,0", ""] {
        assert!(text.parse::<Labels>().unwrap_err().to_string().contains("together, each, or numbers"), "{text}");
    }
    assert_eq!("train".parse(), Ok(Split::Train));
    assert!("testing".parse::<Split>().unwrap_err().to_string().contains("test or train"));
}
