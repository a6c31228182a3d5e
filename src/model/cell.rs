//! A cell of a table as one integer, and what is counted in it.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::Period;

/// Bits for the values of a table's dimensions.
pub const DIMENSION_BITS: u32 = 30;
const INSTANCE_BITS: u32 = 8;
const TABLE_BITS: u32 = 11;

/// Most tables (indicator × breakdown) of one pack.
pub const TABLES_MAX: usize = 1 << TABLE_BITS;
/// Most instances of one pipeline; instance 0 in a cell is *all*.
pub const INSTANCES_MAX: usize = (1 << INSTANCE_BITS) - 1;

/// A cell: table, period, instance and dimension values, packed in the order they are compared.
///
/// `table:11 | period:15 | instance:8 | dimensions:30`. What the dimension bits mean is laid out when a pack
/// is compiled, so a number is a cell only together with its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cell(pub u64);

impl Cell {
    /// A cell from its parts. `dimensions` must fit [`DIMENSION_BITS`].
    pub fn new(table: u16, period: Period, instance: u8, dimensions: u32) -> Self {
        debug_assert!(dimensions < 1 << DIMENSION_BITS);
        let head = u64::from(table) << Period::BITS | u64::from(period.0);
        Self(
            (head << INSTANCE_BITS | u64::from(instance)) << DIMENSION_BITS | u64::from(dimensions),
        )
    }

    /// Which table of the plan.
    pub fn table(self) -> u16 {
        (self.0 >> (DIMENSION_BITS + INSTANCE_BITS + Period::BITS)) as u16
    }

    /// Which period.
    pub fn period(self) -> Period {
        Period((self.0 >> (DIMENSION_BITS + INSTANCE_BITS)) as u16 & ((1 << Period::BITS) - 1))
    }

    /// Which instance, as an index of the plan; 0 is all.
    pub fn instance(self) -> u8 {
        (self.0 >> DIMENSION_BITS) as u8
    }

    /// The same cell of another period.
    #[must_use]
    pub fn in_period(self, period: Period) -> Self {
        Self::new(self.table(), period, self.instance(), self.dimensions())
    }

    /// The same cell with more bits of dimensions set.
    #[must_use]
    pub fn with(self, dimensions: u32) -> Self {
        debug_assert!(dimensions < 1 << DIMENSION_BITS);
        Self(self.0 | u64::from(dimensions))
    }

    /// The values of the dimensions.
    pub fn dimensions(self) -> u32 {
        self.0 as u32 & ((1 << DIMENSION_BITS) - 1)
    }
}

/// A cell and what is told apart inside it until it is summed up: a number of days, or a case worker.
///
/// Twelve bytes, so that a tuple of it with a time and a [`Measure`] has no gaps. Sorted by cell, then by detail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FineCell([u32; 3]);

impl Hash for FineCell {
    /// Two whole numbers: an array would be hashed byte by byte.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.cell().0);
        state.write_u32(self.detail());
    }
}

impl FineCell {
    /// A cell with a detail; 0 where nothing is told apart.
    pub fn new(cell: Cell, detail: u32) -> Self {
        Self([(cell.0 >> 32) as u32, cell.0 as u32, detail])
    }

    /// The cell.
    pub fn cell(self) -> Cell {
        Cell(u64::from(self.0[0]) << 32 | u64::from(self.0[1]))
    }

    /// The detail.
    pub fn detail(self) -> u32 {
        self.0[2]
    }
}

/// What a case adds to one cell: always both parts, so that shares can be added up and checked.
///
/// A plain count has no denominator (zero). A cell whose measure is zero in both parts does not exist.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Measure {
    /// The count, or the part of a share.
    pub numerator: i32,
    /// The whole of a share; 0 for a count.
    pub denominator: i32,
}

impl Measure {
    /// One case or row of a plain count.
    pub const ONE: Self = Self { numerator: 1, denominator: 0 };

    /// Whether the cell does not exist.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// What is published of one cell.
///
/// Wider than a [`Measure`], because days are summed: a country's caseload can be open for more days than an
/// `i32` holds.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Figure {
    /// The count, the part of a share, or the sum of days of a mean or median.
    pub numerator: i64,
    /// The whole of a share, or how many were summed; 0 for a count.
    pub denominator: i64,
    /// Twice the median of the summed days, so that it is whole; none where no median is published.
    pub median_doubled: Option<i64>,
}

impl Figure {
    /// Whether the cell does not exist.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl From<Measure> for Figure {
    fn from(measure: Measure) -> Self {
        Self {
            numerator: i64::from(measure.numerator),
            denominator: i64::from(measure.denominator),
            median_doubled: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_out() {
        let cell = Cell::new(2047, Period(32_767), 255, (1 << DIMENSION_BITS) - 1);
        assert_eq!(cell.0, u64::MAX);
        let cell = Cell::new(7, Period(2_501), 3, 12_345);
        assert_eq!((cell.table(), cell.period(), cell.instance()), (7, Period(2_501), 3));
        assert_eq!(cell.dimensions(), 12_345);
    }
}
