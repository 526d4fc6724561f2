//! A pickle machine for exactly what `torch.save` writes of a `state_dict`, and nothing else.
//!
//! Nothing is executed: the three functions it knows are built in here, every other global is refused. One operation makes at most
//! one value and the program's length is limited by the caller, so memory is bounded by it; values nest at most [`MAX_DEPTH`] deep.

use std::{collections::HashMap, rc::Rc};

/// A tensor's arguments nest three deep; more is an attack on the stack.
const MAX_DEPTH: usize = 8;

/// Where a tensor's numbers are, as `torch._utils._rebuild_tensor_v2` is told.
#[derive(Debug, PartialEq)]
pub struct StoredTensor {
    /// The storage's class without its module, for instance `FloatStorage`.
    pub storage_class: Rc<str>,
    /// The storage's name within the archive.
    pub storage_key: Rc<str>,
    /// How many numbers the storage holds.
    pub storage_length: i64,
    /// The first number's place in the storage.
    pub offset: i64,
    pub size: Vec<i64>,
    pub stride: Vec<i64>,
}

/// In the order of the file.
type NamedTensors = Vec<(Rc<str>, Rc<StoredTensor>)>;

/// Why a pickle is refused.
#[derive(Debug, PartialEq)]
pub enum PickleError {
    /// The program is cut short or does not fit together.
    Malformed(String),
    /// The program is sound and makes something that is no `state_dict` of tensors.
    NotAStateDict(String),
}

fn malformed<T>(what: impl Into<String>) -> Result<T, PickleError> {
    Err(PickleError::Malformed(what.into()))
}

#[derive(Debug, Clone)]
enum Value {
    Mark,
    None,
    Bool,
    Int(i64),
    Text(Rc<str>),
    /// A class of torch storage, without its module.
    StorageClass(Rc<str>),
    OrderedDictClass,
    RebuildTensor,
    Storage(Rc<(Rc<str>, Rc<str>, i64)>),
    Tensor(Rc<StoredTensor>),
    Tuple(Rc<[Value]>, usize),
    Dict(Rc<Dict>),
    /// A dictionary fetched from the memo, where it might contain itself.
    DictAgain,
}

#[derive(Debug, Clone, Default)]
struct Dict {
    tensors: NamedTensors,
    /// Name and kind of the first entry that is no tensor.
    other: Option<String>,
}

impl Value {
    fn depth(&self) -> usize {
        match self {
            Self::Tuple(_, depth) => *depth,
            _ => 0,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Mark => "a mark",
            Self::None => "None",
            Self::Bool => "a bool",
            Self::Int(_) => "a number",
            Self::Text(_) => "a text",
            Self::StorageClass(_) | Self::OrderedDictClass => "a class",
            Self::RebuildTensor => "a function",
            Self::Storage(_) => "a storage",
            Self::Tensor(_) => "a tensor",
            Self::Tuple(..) => "a tuple",
            Self::Dict(_) | Self::DictAgain => "a dictionary",
        }
    }
}

/// Runs the program and gives the tensors of the dictionary it makes, by name.
pub fn state_dict(program: &[u8]) -> Result<NamedTensors, PickleError> {
    let mut machine = Machine { program, stack: Vec::new(), memo: HashMap::new() };
    let dict = match machine.run()? {
        Value::Dict(dict) => Rc::unwrap_or_clone(dict),
        other => return Err(PickleError::NotAStateDict(format!("{} instead of a state_dict", other.kind()))),
    };
    match dict.other {
        Some(entry) => Err(PickleError::NotAStateDict(format!("{entry} instead of tensors alone"))),
        None => Ok(dict.tensors),
    }
}

struct Machine<'a> {
    /// What is still to be run.
    program: &'a [u8],
    stack: Vec<Value>,
    memo: HashMap<u32, Value>,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Value, PickleError> {
        loop {
            let [opcode] = self.take()?;
            match opcode {
                b'.' => return self.pop(),
                // PROTO and its number.
                0x80 => drop(self.take::<1>()?),
                b'(' => self.stack.push(Value::Mark),
                b'N' => self.stack.push(Value::None),
                0x88 | 0x89 => self.stack.push(Value::Bool),
                b'K' => self.push_int(|[byte]: [u8; 1]| i64::from(byte))?,
                b'M' => self.push_int(|bytes| i64::from(u16::from_le_bytes(bytes)))?,
                b'J' => self.push_int(|bytes| i64::from(i32::from_le_bytes(bytes)))?,
                0x8a => self.long()?,
                b'X' => self.text()?,
                b'c' => self.global()?,
                b')' => self.stack.push(Value::Tuple(Rc::new([]), 1)),
                0x85..=0x87 => self.tuple_of(usize::from(opcode - 0x84))?,
                b't' => {
                    let items = self.pop_to_mark()?;
                    self.push_tuple(items)?;
                }
                b'}' => self.stack.push(Value::Dict(Rc::default())),
                b'q' => {
                    let [slot] = self.take()?;
                    self.memoise(u32::from(slot))?;
                }
                b'r' => {
                    let slot = u32::from_le_bytes(self.take()?);
                    self.memoise(slot)?;
                }
                b'h' => {
                    let [slot] = self.take()?;
                    self.recall(u32::from(slot))?;
                }
                b'j' => {
                    let slot = u32::from_le_bytes(self.take()?);
                    self.recall(slot)?;
                }
                b'Q' => self.storage()?,
                b'R' => self.reduce()?,
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![key, value])?;
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set_items(items)?;
                }
                b'b' => self.build()?,
                other => return malformed(format!("its pickle uses opcode 0x{other:02x}, which no state_dict needs")),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let Some((bytes, rest)) = self.program.split_first_chunk() else {
            return malformed("its pickle ends too soon");
        };
        self.program = rest;
        Ok(*bytes)
    }

    fn take_slice(&mut self, length: usize) -> Result<&[u8], PickleError> {
        let Some((bytes, rest)) = self.program.split_at_checked(length) else {
            return malformed("its pickle ends too soon");
        };
        self.program = rest;
        Ok(bytes)
    }

    fn take_line(&mut self) -> Result<&str, PickleError> {
        let Some(length) = self.program.iter().position(|&byte| byte == b'\n') else {
            return malformed("its pickle ends too soon");
        };
        let line = &self.program[..length];
        self.program = &self.program[length + 1..];
        str::from_utf8(line).or_else(|_| malformed("its pickle has a name that is no text"))
    }

    fn pop(&mut self) -> Result<Value, PickleError> {
        match self.stack.pop() {
            None | Some(Value::Mark) => malformed("its pickle takes a value where there is none"),
            Some(value) => Ok(value),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, PickleError> {
        let Some(mark) = self.stack.iter().rposition(|value| matches!(value, Value::Mark)) else {
            return malformed("its pickle lacks a mark");
        };
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn push_int<const N: usize>(&mut self, decode: impl Fn([u8; N]) -> i64) -> Result<(), PickleError> {
        let bytes = self.take()?;
        self.stack.push(Value::Int(decode(bytes)));
        Ok(())
    }

    /// A little-endian two's complement number of any length; at most eight bytes here.
    fn long(&mut self) -> Result<(), PickleError> {
        let [length] = self.take()?;
        let bytes = self.take_slice(usize::from(length))?;
        if bytes.len() > 8 {
            return malformed("its pickle has a number of more than 64 bits");
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut extended = [if negative { 0xff } else { 0 }; 8];
        extended[..bytes.len()].copy_from_slice(bytes);
        self.stack.push(Value::Int(i64::from_le_bytes(extended)));
        Ok(())
    }

    fn text(&mut self) -> Result<(), PickleError> {
        let length = u32::from_le_bytes(self.take()?);
        let text = str::from_utf8(self.take_slice(length as usize)?)
            .or_else(|_| malformed("its pickle has a text that is not UTF-8"))?;
        let text = Value::Text(text.into());
        self.stack.push(text);
        Ok(())
    }

    fn global(&mut self) -> Result<(), PickleError> {
        let module = self.take_line()?.to_owned();
        let name = self.take_line()?;
        let value = match (module.as_str(), name) {
            ("collections", "OrderedDict") => Value::OrderedDictClass,
            ("torch._utils", "_rebuild_tensor_v2") => Value::RebuildTensor,
            ("torch", class) if class.ends_with("Storage") => Value::StorageClass(class.into()),
            (module, name) => {
                return Err(PickleError::NotAStateDict(format!("the Python object {module}.{name}").chars().take(200).collect()));
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn tuple_of(&mut self, length: usize) -> Result<(), PickleError> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.push_tuple(items)
    }

    fn push_tuple(&mut self, items: Vec<Value>) -> Result<(), PickleError> {
        let depth = 1 + items.iter().map(Value::depth).max().unwrap_or(0);
        if depth > MAX_DEPTH {
            return malformed(format!("its pickle nests tuples more than {MAX_DEPTH} deep"));
        }
        self.stack.push(Value::Tuple(items.into(), depth));
        Ok(())
    }

    fn memoise(&mut self, slot: u32) -> Result<(), PickleError> {
        let value = match self.stack.last() {
            None | Some(Value::Mark) => return malformed("its pickle takes a value where there is none"),
            Some(Value::Dict(_)) => Value::DictAgain,
            Some(value) => value.clone(),
        };
        self.memo.insert(slot, value);
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), PickleError> {
        let Some(value) = self.memo.get(&slot) else {
            return malformed("its pickle recalls what it never stored");
        };
        self.stack.push(value.clone());
        Ok(())
    }

    /// A persistent id: `('storage', class, key, device, length)`.
    fn storage(&mut self) -> Result<(), PickleError> {
        let id = self.pop()?;
        if let Value::Tuple(items, _) = &id
            && let [Value::Text(tag), Value::StorageClass(class), Value::Text(key), Value::Text(_), Value::Int(length)] = &**items
            && &**tag == "storage"
        {
            self.stack.push(Value::Storage(Rc::new((class.clone(), key.clone(), *length))));
            return Ok(());
        }
        malformed("its pickle has a storage that is not described as torch.save does")
    }

    fn reduce(&mut self) -> Result<(), PickleError> {
        let arguments = self.pop()?;
        let function = self.pop()?;
        let Value::Tuple(arguments, _) = &arguments else {
            return malformed("its pickle calls a function without arguments");
        };
        let value = match function {
            Value::OrderedDictClass if arguments.is_empty() => Value::Dict(Rc::default()),
            Value::RebuildTensor => Value::Tensor(Rc::new(rebuild_tensor(arguments)?)),
            other => return malformed(format!("its pickle calls {}", other.kind())),
        };
        self.stack.push(value);
        Ok(())
    }

    /// Keys and values by turns into the dictionary on top of the stack.
    fn set_items(&mut self, items: Vec<Value>) -> Result<(), PickleError> {
        let Some(Value::Dict(dict)) = self.stack.last_mut() else {
            return malformed("its pickle fills a dictionary that is not there");
        };
        if !items.len().is_multiple_of(2) {
            return malformed("its pickle has a key without a value");
        }
        let dict = Rc::make_mut(dict);
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            match (key, value) {
                (Value::Text(name), Value::Tensor(tensor)) => dict.tensors.push((name, tensor)),
                (Value::Text(name), value) => {
                    dict.other.get_or_insert_with(|| {
                        format!("{} under {:?}", value.kind(), name.chars().take(100).collect::<String>())
                    });
                }
                (key, value) => {
                    dict.other.get_or_insert_with(|| format!("{} under {}", value.kind(), key.kind()));
                }
            }
        }
        Ok(())
    }

    /// An object's attributes; a `state_dict` has `_metadata`, which says nothing about its tensors.
    fn build(&mut self) -> Result<(), PickleError> {
        let _attributes = self.pop()?;
        match self.stack.last() {
            Some(Value::Dict(_)) => Ok(()),
            _ => malformed("its pickle sets attributes of what has none"),
        }
    }
}

/// `(storage, offset, size, stride, requires_grad, backward_hooks)`, and in later versions metadata.
fn rebuild_tensor(arguments: &[Value]) -> Result<StoredTensor, PickleError> {
    let [Value::Storage(storage), Value::Int(offset), Value::Tuple(size, _), Value::Tuple(stride, _), Value::Bool, ..] =
        arguments
    else {
        return malformed("its pickle has a tensor that is not described as torch.save does");
    };
    let (storage_class, storage_key, storage_length) = (**storage).clone();
    let (size, stride) = (integers(size)?, integers(stride)?);
    Ok(StoredTensor { storage_class, storage_key, storage_length, offset: *offset, size, stride })
}

fn integers(values: &[Value]) -> Result<Vec<i64>, PickleError> {
    let integer = |value: &Value| match value {
        Value::Int(value) => Ok(*value),
        other => malformed(format!("its pickle has {} in a tensor's shape", other.kind())),
    };
    values.iter().map(integer).collect()
}

#[cfg(test)]
mod tests;
