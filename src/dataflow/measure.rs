//! A measure as a difference: both parts are added up on their own.

use differential_dataflow::difference::{Abelian, IsZero, Monoid, Semigroup};

use crate::model::Measure;

impl IsZero for Measure {
    fn is_zero(&self) -> bool {
        self.is_empty()
    }
}

impl Semigroup for Measure {
    fn plus_equals(&mut self, other: &Self) {
        self.numerator += other.numerator;
        self.denominator += other.denominator;
    }
}

impl Monoid for Measure {
    fn zero() -> Self {
        Self::default()
    }
}

impl Abelian for Measure {
    fn negate(&mut self) {
        self.numerator = -self.numerator;
        self.denominator = -self.denominator;
    }
}
