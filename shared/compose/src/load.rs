//! From files to one project: read, filled in, brought to the long form, extended, included, merged.

mod extends;
mod include;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::Read;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use indexmap::IndexMap;

use crate::canonical::{self, Here};
use crate::discover;
use crate::dotenv;
use crate::error::ComposeError;
use crate::interpolate::{Blank, Variables};
use crate::merge;
use crate::model::Project;
use crate::notice::{Notice, Origin};
use crate::path;
use crate::read;
use crate::yaml::{Map, Node, Value, parse};

/// Longest file that is read.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What to load, and what surrounds it. The crate reads no variable of the process itself.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// The files, the later over the earlier; not empty. See [`discover`](crate::discover()).
    pub files: Vec<Utf8PathBuf>,
    /// Variables of the surroundings. They win over `.env`.
    pub environment: BTreeMap<String, String>,
    /// Files of variables instead of the project's `.env`.
    pub env_files: Vec<Utf8PathBuf>,
    /// A name that wins over the one in the files.
    pub name: Option<String>,
    /// Profiles that are wanted, beside those of `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// The only services that are wanted, with what they depend on; none for all. Naming one switches its
    /// profile on.
    pub services: Vec<String>,
}

/// A project, and what has to be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// In the order of the files.
    pub notices: Vec<Notice>,
    /// What it was read with: also secrets may come from there.
    pub variables: Surroundings,
}

/// Loads a project.
///
/// # Errors
/// [`ComposeError`], with file and line, for anything that Compose would refuse as well.
pub fn load(wanted: &Load) -> Result<Loaded, ComposeError> {
    let first = wanted.files.first().ok_or_else(|| ComposeError::NotFound {
        start: Utf8PathBuf::new(),
    })?;
    let root = first.parent().unwrap_or(Utf8Path::new("/")).to_owned();
    let mut loader = Loader {
        root: root.clone(),
        home: wanted.environment.get("HOME").cloned(),
        notices: Vec::new(),
        blanks: Vec::new(),
        open: Vec::new(),
    };
    let mut variables = Surroundings {
        process: wanted.environment.clone(),
        files: IndexMap::new(),
    };
    if wanted.env_files.is_empty() {
        let file = root.join(".env");
        if file.is_file() {
            variables.add(&file)?;
        }
    } else {
        for file in &wanted.env_files {
            variables.add(file)?;
        }
    }
    let name = loader.name(wanted, &variables)?;
    variables
        .process
        .insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());
    let mut tree = Node::default();
    for file in &wanted.files {
        let over = loader.file(file, &root, &variables)?;
        tree = if tree.is_null() {
            over
        } else {
            merge::merge(tree, over)
        };
    }
    loader.tell_blanks();
    read::project(read::Parts {
        tree,
        name,
        root,
        wanted,
        variables: &variables,
        notices: loader.notices,
    })
}

/// Variables: those of the process, then those of files.
#[derive(Clone)]
pub struct Surroundings {
    process: BTreeMap<String, String>,
    files: IndexMap<String, String>,
}

// Values may be secret.
impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("process", &self.process.len())
            .field("files", &self.files.len())
            .finish()
    }
}

impl Surroundings {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        self.process.get(name).or_else(|| self.files.get(name)).cloned()
    }

    /// Reads a file of variables; what is known already stays.
    fn add(&mut self, file: &Utf8Path) -> Result<(), ComposeError> {
        let values = variables_of(file, false, &|name| self.get(name))?;
        for (key, value) in values {
            if let Some(value) = value {
                self.files.insert(key, value);
            }
        }
        Ok(())
    }
}

/// Reads a file of variables.
pub(crate) fn variables_of(
    file: &Utf8Path,
    raw: bool,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<IndexMap<String, Option<String>>, ComposeError> {
    let text = text_of(file)?;
    dotenv::parse(&text, raw, lookup).map_err(|(line, why)| ComposeError::Syntax {
        at: Origin {
            file: file.as_str().into(),
            line,
        },
        why,
    })
}

fn text_of(file: &Utf8Path) -> Result<String, ComposeError> {
    let failed = |source| ComposeError::Read {
        path: file.to_owned(),
        source,
    };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(LONGEST + 1).read_to_string(&mut text))
        .map_err(failed)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > LONGEST) {
        return Err(ComposeError::TooLong {
            path: file.to_owned(),
            limit: LONGEST,
        });
    }
    Ok(text)
}

struct Loader {
    /// Where the project is.
    root: Utf8PathBuf,
    home: Option<String>,
    notices: Vec<Notice>,
    blanks: Vec<Blank>,
    /// Files that are being read, so that none includes itself.
    open: Vec<Utf8PathBuf>,
}

impl Loader {
    /// What the project is called: said, in the surroundings, in the last file that says it, or as its folder.
    fn name(&self, wanted: &Load, variables: &Surroundings) -> Result<String, ComposeError> {
        let said = wanted
            .name
            .clone()
            .or_else(|| variables.get("COMPOSE_PROJECT_NAME"))
            .filter(|name| !name.is_empty());
        if let Some(name) = said {
            return Ok(discover::slug(&name, usize::MAX));
        }
        let mut name = None;
        for file in &wanted.files {
            for document in self.parse(file)? {
                if let Some(node) = document.get("name")
                    && let Some(text) = node.as_str()
                {
                    let lookup = |name: &str| variables.get(name);
                    let mut node = Node::text(text, &node.at);
                    Variables::new(&lookup).fill(&mut node, "name")?;
                    name = node.as_str().map(str::to_owned);
                }
            }
        }
        let name = name.filter(|name| !name.is_empty());
        let folder = || self.root.file_name().unwrap_or_default().to_owned();
        Ok(discover::slug(&name.unwrap_or_else(folder), usize::MAX))
    }

    fn parse(&self, file: &Utf8Path) -> Result<Vec<Node>, ComposeError> {
        let shown = path::relative(&self.root, file).unwrap_or_else(|| file.to_owned());
        let shown: Arc<str> = shown.as_str().into();
        parse(&text_of(file)?, &shown)
    }

    /// One file with all it extends and includes. Relative paths start from `base`.
    fn file(
        &mut self,
        file: &Utf8Path,
        base: &Utf8Path,
        variables: &Surroundings,
    ) -> Result<Node, ComposeError> {
        if self.open.iter().any(|open| open == file) {
            return Err(ComposeError::Syntax {
                at: Origin {
                    file: file.as_str().into(),
                    line: 0,
                },
                why: "the file includes itself".to_owned(),
            });
        }
        self.open.push(file.to_owned());
        let mut tree = Node::default();
        for document in self.parse(file)? {
            let over = self.document(document, base, variables)?;
            tree = if tree.is_null() {
                over
            } else {
                merge::merge(tree, over)
            };
        }
        self.open.pop();
        Ok(tree)
    }

    fn document(
        &mut self,
        mut tree: Node,
        base: &Utf8Path,
        variables: &Surroundings,
    ) -> Result<Node, ComposeError> {
        if tree.is_null() {
            return Ok(tree);
        }
        self.prepare(&mut tree, base, variables)?;
        self.extend(&mut tree, base, variables)?;
        self.include(tree, base, variables)
    }

    /// Fills in the variables and brings everything to its long form.
    fn prepare(
        &mut self,
        tree: &mut Node,
        base: &Utf8Path,
        variables: &Surroundings,
    ) -> Result<(), ComposeError> {
        let lookup = |name: &str| variables.get(name);
        let mut filling = Variables::new(&lookup);
        filling.fill(tree, "")?;
        self.blanks.append(&mut filling.blanks);
        let here = Here {
            key: "the file".to_owned(),
            base,
            home: self.home.as_deref(),
        };
        canonical::project(tree, &here)
    }

    /// One notice for each variable, at the first place that asked for it.
    fn tell_blanks(&mut self) {
        let mut told = BTreeSet::new();
        for blank in std::mem::take(&mut self.blanks) {
            if told.insert(blank.variable.clone()) {
                let name = &blank.variable;
                self.notices.push(Notice::warning(
                    &blank.at,
                    &blank.key,
                    format!("the variable {name} is not set, nothing stands in its place"),
                    format!("set it in .env, or write ${{{name}:-default}}"),
                ));
            }
        }
    }
}

/// The services of a file.
fn services(tree: &Node) -> Option<&Map> {
    tree.get("services").and_then(Node::as_map)
}

fn services_mut(tree: &mut Node) -> Option<&mut Map> {
    let Value::Map(map) = &mut tree.value else {
        return None;
    };
    match &mut map.get_mut("services")?.value {
        Value::Map(map) => Some(map),
        _ => None,
    }
}
