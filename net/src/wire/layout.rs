//! The layout of values in a frame: rkyv structs without references, padding or alignment.
//!
//! A layout is its own archive: unaligned little-endian numbers and bytes, in the order of its
//! fields. rkyv writes it field by field, and checks it with bytecheck before it hands out a
//! reference to it; numbers that have a meaning of their own (flags, discriminants) are checked
//! when they are read as that.

use std::convert::Infallible;

use rkyv::api::{low, low::LowValidator, serialize_using};
use rkyv::bytecheck::CheckBytes;
use rkyv::munge::munge;
use rkyv::rancor::{Failure, Fallible};
use rkyv::rend::unaligned::{u16_ule, u32_ule, u64_ule};
use rkyv::ser::{Positional, Writer};
use rkyv::{Archive, Place, Portable, Serialize};

use super::WireError;
use crate::Outgoing;

/// A part of a header, as it lies there.
pub(super) trait Layout:
    Copy + PartialEq + Portable + for<'a> CheckBytes<LowValidator<'a, Failure>> + 'static
{
    /// The bytes in the place of an absent optional part.
    const ZERO: Self;

    /// Writes each field to its place.
    fn place(&self, out: Place<Self>);
}

/// A value of the protocol whose whole content lies in a header, in one layout.
pub(super) trait Laid: Sized {
    /// That layout.
    type Layout: Layout;

    /// Lays it out.
    fn lay_out(&self) -> Self::Layout;

    /// Reads it back, and checks what can be checked without knowing more than the layout.
    fn read(layout: &Self::Layout) -> Result<Self, WireError>;
}

/// A layout's fields, for [`wire_digest`](super::wire_digest) and the tables of `docs/WIRE.md`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Description {
    /// Its name.
    pub(super) name: &'static str,
    /// The name and size of each field, in order.
    pub(super) fields: &'static [(&'static str, usize)],
}

/// Declares a layout.
macro_rules! layout {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $layout:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, rkyv::Portable, rkyv::bytecheck::CheckBytes)]
        #[bytecheck(crate = rkyv::bytecheck)]
        #[repr(C)]
        pub(in crate::wire) struct $name {
            $(pub(in crate::wire) $field: $layout,)*
        }

        impl $name {
            pub(in crate::wire) const DESCRIPTION: Description = Description {
                name: stringify!($name),
                fields: &[$((stringify!($field), size_of::<$layout>()),)*],
            };
        }

        impl Layout for $name {
            const ZERO: Self = Self { $($field: <$layout as Layout>::ZERO,)* };

            #[inline]
            fn place(&self, out: Place<Self>) {
                munge!(let Self { $($field,)* } = out);
                $(Layout::place(&self.$field, $field);)*
            }
        }
    };
}

/// Declares the layout of a struct of the protocol that has the same name and fields.
macro_rules! message {
    ($(#[$doc:meta])* $name:ident { $($field:ident: $layout:ty,)* }) => {
        layout! { $(#[$doc])* $name { $($field: $layout,)* } }

        impl Laid for loggos_protocol::$name {
            type Layout = $name;

            #[inline]
            fn lay_out(&self) -> $name {
                $name { $($field: Laid::lay_out(&self.$field),)* }
            }

            #[inline]
            fn read(layout: &$name) -> Result<Self, WireError> {
                Ok(Self { $($field: Laid::read(&layout.$field)?,)* })
            }
        }
    };
}

pub(super) use {layout, message};

/// A part that may be absent; all zero then.
#[derive(Clone, Copy, Debug, PartialEq, Portable, CheckBytes)]
#[bytecheck(crate = rkyv::bytecheck)]
#[repr(C)]
pub(super) struct Maybe<L> {
    /// 1 if it is there, else 0.
    pub(super) is_there: u8,
    /// It, or zeros.
    pub(super) value: L,
}

impl<L: Layout> Maybe<L> {
    /// Lays out what may be absent.
    #[inline]
    pub(super) fn new(value: Option<L>) -> Self {
        value.map_or(Self::ZERO, |value| Self { is_there: 1, value })
    }

    /// The part, if it is there.
    #[inline]
    pub(super) fn get(&self) -> Result<Option<&L>, WireError> {
        if bool::read(&self.is_there)? {
            return Ok(Some(&self.value));
        }
        if self.value != L::ZERO {
            return Err(WireError::Absent);
        }
        Ok(None)
    }
}

impl<L: Layout> Layout for Maybe<L> {
    const ZERO: Self = Self { is_there: 0, value: L::ZERO };

    #[inline]
    fn place(&self, out: Place<Self>) {
        munge!(let Self { is_there, value } = out);
        is_there.write(self.is_there);
        self.value.place(value);
    }
}

impl<T: Laid> Laid for Option<T> {
    type Layout = Maybe<T::Layout>;

    #[inline]
    fn lay_out(&self) -> Self::Layout {
        Maybe::new(self.as_ref().map(T::lay_out))
    }

    #[inline]
    fn read(layout: &Self::Layout) -> Result<Self, WireError> {
        layout.get()?.map(T::read).transpose()
    }
}

/// Appends `layout` to the bytes of `out`.
#[inline]
pub(super) fn put<L: Layout>(layout: &L, out: &mut Outgoing) {
    let Ok(_) = serialize_using(&Archiving(layout), &mut Appending(out));
}

/// Takes a layout off the front of `header`.
#[inline]
pub(super) fn take<'a, L: Layout>(header: &mut &'a [u8]) -> Result<&'a L, WireError> {
    let needed = size_of::<L>();
    let missing = WireError::HeaderLength { needed: needed as u64, is: header.len() };
    let (layout, rest) = header.split_at_checked(needed).ok_or(missing)?;
    *header = rest;
    low::access::<L, Failure>(layout).map_err(|_| WireError::Malformed)
}

/// A layout on its way through rkyv: its own archive.
struct Archiving<'a, L>(&'a L);

impl<L: Layout> Archive for Archiving<'_, L> {
    type Archived = L;
    type Resolver = ();

    #[inline]
    fn resolve(&self, (): (), out: Place<L>) {
        self.0.place(out);
    }
}

impl<L: Layout, S: Fallible + ?Sized> Serialize<S> for Archiving<'_, L> {
    #[inline]
    fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
        Ok(())
    }
}

/// The sink that rkyv writes to.
struct Appending<'a>(&'a mut Outgoing);

impl Positional for Appending<'_> {
    #[inline]
    fn pos(&self) -> usize {
        self.0.written()
    }
}

impl Writer<Infallible> for Appending<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), Infallible> {
        self.0.put(bytes);
        Ok(())
    }
}

macro_rules! numbers {
    ($($layout:ty = $zero:expr),*) => {$(
        impl Layout for $layout {
            const ZERO: Self = $zero;

            #[inline]
            fn place(&self, out: Place<Self>) {
                out.write(*self);
            }
        }
    )*};
}

numbers!(
    u8 = 0,
    u16_ule = u16_ule::from_native(0),
    u32_ule = u32_ule::from_native(0),
    u64_ule = u64_ule::from_native(0)
);

impl<const N: usize> Layout for [u8; N] {
    const ZERO: Self = [0; N];

    #[inline]
    fn place(&self, out: Place<Self>) {
        out.write(*self);
    }
}
