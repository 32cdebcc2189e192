//! One Rust file, read the way the rules need it: its tokens with their lines (so that strings and comments
//! never count, and macro bodies do), its functions, and the lines that are compiled only for tests.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use anyhow::Result;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

pub struct Source {
    pub path: String,
    pub text: String,
    pub tokens: Vec<Token>,
    pub functions: Vec<Function>,
    /// Lines of `#[cfg(test)]` items; everything, for a file that is such an item.
    test_lines: Vec<RangeInclusive<usize>>,
    /// Inline modules: `mod name { … }`.
    inline_mods: Vec<RangeInclusive<usize>>,
    /// Names of `#[cfg(test)] mod name;`.
    test_mods: Vec<String>,
}

/// An identifier, one character of punctuation, a bracket, or a literal (as `""`: no rule reads them).
pub struct Token {
    pub text: String,
    pub line: usize,
}

pub struct Function {
    pub name: String,
    /// From `fn` to the closing bracket.
    pub lines: RangeInclusive<usize>,
}

impl Source {
    pub fn parse(path: &str, text: String) -> Result<Source> {
        let file = syn::parse_file(&text)?;
        let mut tokens = Vec::new();
        flatten(text.parse::<TokenStream>().map_err(|e| anyhow::anyhow!("{e}"))?, &mut tokens);
        let mut reader = Reader::default();
        reader.visit_file(&file);
        Ok(Source {
            path: path.to_owned(),
            text,
            tokens,
            functions: reader.functions,
            test_lines: reader.test_lines,
            inline_mods: reader.inline_mods,
            test_mods: reader.test_mods,
        })
    }

    /// Where the files of this file's `#[cfg(test)] mod name;` may be: `dir/name.rs`, or all of `dir/name/`.
    pub fn test_modules(&self) -> Vec<String> {
        let dir = self.module_dir();
        self.test_mods
            .iter()
            .flat_map(|name| [format!("{dir}/{name}.rs"), format!("{dir}/{name}/")])
            .collect()
    }

    /// Marks the file as test code when a `#[cfg(test)] mod` somewhere names it.
    pub fn note_test_files(&mut self, test_files: &BTreeSet<String>) {
        let named =
            |file: &String| self.path == *file || (file.ends_with('/') && self.path.starts_with(file));
        if test_files.iter().any(named) {
            self.test_lines = vec![1..=usize::MAX];
        }
    }

    /// Whether the line is compiled only for tests.
    pub fn is_test(&self, line: usize) -> bool {
        let test_folder = |dir: &str| self.path.starts_with(dir) || self.path.contains(&format!("/{dir}"));
        test_folder("tests/") || test_folder("benches/") || self.test_lines.iter().any(|r| r.contains(&line))
    }

    /// Module path inside its crate at `line`: `probe-core/src/ring/mod.rs` is `["ring"]`. An inline module
    /// adds an element without its name, since only the depth is of use.
    pub fn module_path(&self, line: usize) -> Vec<String> {
        let inside = self.path.split_once("src/").map_or(self.path.as_str(), |(_, inside)| inside);
        let mut path: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
        if path.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
            path.pop();
        }
        path.extend(self.inline_mods.iter().filter(|mods| mods.contains(&line)).map(|_| String::new()));
        path
    }

    fn module_dir(&self) -> String {
        match self.path.rsplit_once('/') {
            Some((dir, "mod.rs" | "lib.rs" | "main.rs")) => dir.to_owned(),
            Some(_) => self.path.trim_end_matches(".rs").to_owned(),
            None => ".".to_owned(),
        }
    }
}

#[derive(Default)]
struct Reader {
    functions: Vec<Function>,
    test_lines: Vec<RangeInclusive<usize>>,
    inline_mods: Vec<RangeInclusive<usize>>,
    test_mods: Vec<String>,
}

impl Reader {
    fn function(&mut self, sig: &syn::Signature, block: &syn::Block) {
        let lines = sig.fn_token.span().start().line..=block.brace_token.span.close().end().line;
        self.functions.push(Function { name: sig.ident.to_string(), lines });
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_cfg_test(attributes(item)) {
            self.test_lines.push(item.span().start().line..=item.span().end().line);
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_some() {
            self.inline_mods.push(item.span().start().line..=item.span().end().line);
        } else if is_cfg_test(&item.attrs) {
            self.test_mods.push(item.ident.to_string());
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_cfg_test(&item.attrs) {
            self.test_lines.push(item.span().start().line..=item.span().end().line);
        }
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn is_cfg_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|cfg| cfg == "test")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Macro(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        // The enum is non-exhaustive; what is left (extern crate, foreign mod, union) is not used here.
        _ => &[],
    }
}

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    for tree in stream {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Ident(ident) => into.push(Token { text: ident.to_string(), line }),
            TokenTree::Punct(punct) => into.push(Token { text: punct.as_char().to_string(), line }),
            TokenTree::Literal(_) => into.push(Token { text: "\"\"".to_owned(), line }),
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                into.push(Token { text: open.to_owned(), line });
                let end = group.span_close().end().line;
                flatten(group.stream(), into);
                into.push(Token { text: close.to_owned(), line: end });
            }
        }
    }
}
