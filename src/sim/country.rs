//! An invented country with Cambodia's shape: 25 provinces, about 200 districts and 1,600 communes.

use serde_json::{Value, json};

/// The code of the country.
const COUNTRY: &str = "KH";

/// What the levels of places are called, from the country down.
const LEVELS: &[&str] = &["country", "province", "district", "commune"];

/// Province: English name, Khmer name, number of districts, share of the cases.
type Province = (&'static str, &'static str, u16, u16);

/// In the order of their codes, `01` to `25`.
const PROVINCES: &[Province] = &[
    ("Banteay Meanchey", "បន្ទាយមានជ័យ", 9, 60),
    ("Battambang", "បាត់ដំបង", 14, 95),
    ("Kampong Cham", "កំពង់ចាម", 10, 55),
    ("Kampong Chhnang", "កំពង់ឆ្នាំង", 8, 25),
    ("Kampong Speu", "កំពង់ស្ពឺ", 8, 45),
    ("Kampong Thom", "កំពង់ធំ", 9, 30),
    ("Kampot", "កំពត", 8, 30),
    ("Kandal", "កណ្ដាល", 13, 80),
    ("Koh Kong", "កោះកុង", 7, 10),
    ("Kratie", "ក្រចេះ", 6, 20),
    ("Mondulkiri", "មណ្ឌលគិរី", 5, 4),
    ("Phnom Penh", "ភ្នំពេញ", 14, 170),
    ("Preah Vihear", "ព្រះវិហារ", 8, 12),
    ("Prey Veng", "ព្រៃវែង", 13, 50),
    ("Pursat", "ពោធិ៍សាត់", 7, 22),
    ("Ratanakiri", "រតនគិរី", 9, 10),
    ("Siem Reap", "សៀមរាប", 13, 110),
    ("Preah Sihanouk", "ព្រះសីហនុ", 5, 35),
    ("Stung Treng", "ស្ទឹងត្រែង", 6, 8),
    ("Svay Rieng", "ស្វាយរៀង", 8, 28),
    ("Takeo", "តាកែវ", 10, 40),
    ("Oddar Meanchey", "ឧត្តរមានជ័យ", 5, 15),
    ("Kep", "កែប", 2, 3),
    ("Pailin", "ប៉ៃលិន", 2, 5),
    ("Tboung Khmum", "ត្បូងឃ្មុំ", 7, 38),
];

/// Syllables for the invented names of districts and communes.
const FIRST: &[(&str, &str)] = &[
    ("Prey", "ព្រៃ"),
    ("Phum", "ភូមិ"),
    ("Koh", "កោះ"),
    ("Svay", "ស្វាយ"),
    ("Chroy", "ជ្រោយ"),
    ("Boeng", "បឹង"),
    ("Trapeang", "ត្រពាំង"),
    ("Kbal", "ក្បាល"),
    ("Toul", "ទួល"),
    ("O", "អូរ"),
    ("Samraong", "សំរោង"),
];
const SECOND: &[(&str, &str)] = &[
    ("Thmei", "ថ្មី"),
    ("Chas", "ចាស់"),
    ("Leu", "លើ"),
    ("Kraom", "ក្រោម"),
    ("Chrey", "ជ្រៃ"),
    ("Romdoul", "រំដួល"),
    ("Sdao", "ស្តៅ"),
    ("Khnor", "ខ្នុរ"),
    ("Ampil", "អំពិល"),
    ("Trach", "ត្រាច"),
    ("Sralau", "ស្រឡៅ"),
    ("Kandal", "កណ្តាល"),
    ("Veng", "វែង"),
];

/// A place of the country.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// `KH`, `01`, `0102` or `010203`.
    pub(super) code: String,
    level: usize,
    en: String,
    /// Empty where nobody has translated the name.
    km: String,
    /// Whether the place is out of use.
    pub(super) disabled: bool,
}

/// Every place of the country, and the districts by weight of cases.
pub(super) struct Country {
    places: Vec<Place>,
    /// Codes of the communes of each district, one entry per district in order of code.
    districts: Vec<District>,
    /// Sum of the weights up to and including each district.
    weights: Vec<u32>,
}

struct District {
    code: String,
    communes: Vec<String>,
}

impl Country {
    /// The same country every time.
    pub(super) fn new() -> Self {
        let mut country = Self { places: Vec::new(), districts: Vec::new(), weights: Vec::new() };
        country.add(COUNTRY, 0, ("Cambodia", "កម្ពុជា"));
        for (number, province) in (1_u16..).zip(PROVINCES) {
            country.add_province(number, province);
        }
        country
    }

    fn add_province(&mut self, number: u16, province: &Province) {
        let (en, km, district_count, weight) = *province;
        self.add(&format!("{number:02}"), 1, (en, km));
        for district in 1..=district_count {
            let code = format!("{number:02}{district:02}");
            self.add_invented(&code, 2, usize::from(number * 31 + district * 7));
            let mut communes = Vec::new();
            for commune in 1..=6 + (number + district) % 5 {
                let code = format!("{code}{commune:02}");
                self.add_invented(&code, 3, usize::from(number * 17 + district * 5 + commune));
                communes.push(code);
            }
            let before = self.weights.last().copied().unwrap_or(0);
            let share = 100 * u32::from(weight) / u32::from(district * district_count);
            self.weights.push(before + share.max(1));
            self.districts.push(District { code, communes });
        }
    }

    fn add_invented(&mut self, code: &str, level: usize, salt: usize) {
        let first = FIRST[salt % FIRST.len()];
        let second = SECOND[(salt / FIRST.len() + salt) % SECOND.len()];
        let en = format!("{} {}", first.0, second.0);
        let km = if salt % 40 == 3 { String::new() } else { format!("{}{}", first.1, second.1) };
        self.add(code, level, (&en, &km));
    }

    fn add(&mut self, code: &str, level: usize, (en, km): (&str, &str)) {
        let disabled = level == 3 && self.places.len() % 400 == 399;
        let (code, en, km) = (code.to_owned(), en.to_owned(), km.to_owned());
        self.places.push(Place { code, level, en, km, disabled });
    }

    /// The number of the district that a draw chooses, by weight of cases.
    pub(super) fn district_number(&self, draw: u32) -> usize {
        let total = self.weights.last().copied().unwrap_or(1);
        self.weights.partition_point(|sum| *sum <= draw % total)
    }

    /// The code of a commune of a district.
    pub(super) fn commune(&self, district: usize, draw: u32) -> &str {
        let communes = &self.districts[district % self.districts.len()].communes;
        &communes[draw as usize % communes.len()]
    }

    /// The code of the district with this number, counted round and round.
    pub(super) fn district(&self, number: usize) -> &str {
        &self.districts[number % self.districts.len()].code
    }

    /// The places of the country, in the order of their database ids.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// One place as the server gives it, with or without its hierarchy.
    pub(super) fn reply(&self, at: usize, hierarchy: bool) -> Value {
        let place = &self.places[at];
        let codes = ancestors(&place.code);
        let names = |pick: fn(&Place) -> &str| {
            let names = codes.iter().map(|code| self.find(code).map_or("", pick));
            names.collect::<Vec<_>>().join("::")
        };
        let mut reply = json!({
            "id": at + 1,
            "code": place.code,
            "type": LEVELS[place.level],
            "disabled": place.disabled,
            "name": {"en": names(|place| &place.en), "km": names(|place| &place.km)},
        });
        if hierarchy {
            reply["admin_level"] = json!(place.level);
            reply["placename"] = json!({"en": place.en, "km": place.km});
            reply["hierarchy"] = json!(codes);
        }
        reply
    }

    fn find(&self, code: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.code == code)
    }

    /// The reply of `GET /locations?hierarchy=true` with everything on one page.
    pub(super) fn reply_all(&self) -> Value {
        let count = self.places.len();
        let data: Vec<Value> = (0..count).map(|at| self.reply(at, true)).collect();
        json!({"data": data, "metadata": {"total": count, "per": count, "page": 1}})
    }
}

/// The codes from the root to a place, the place last.
pub(super) fn ancestors(code: &str) -> Vec<&str> {
    let mut codes = vec![COUNTRY];
    if code != COUNTRY {
        codes.extend([2, 4, 6].iter().filter(|end| **end <= code.len()).map(|end| &code[..*end]));
    }
    codes
}

/// Whether `code` is `root` or below it, both at `level` or deeper.
pub(super) fn is_within(code: &str, root: &str, level: usize) -> bool {
    let known = code == COUNTRY || code.bytes().all(|byte| byte.is_ascii_digit());
    let codes = if known { ancestors(code) } else { vec![code] };
    codes.iter().skip(level).any(|ancestor| *ancestor == root)
}

/// `KH.01.0102`, the dotted path of a district.
pub(super) fn dotted_path(code: &str) -> String {
    ancestors(code).join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_country_has_the_expected_shape() {
        let country = Country::new();
        let count = |level| country.places().iter().filter(|place| place.level == level).count();
        assert_eq!((count(0), count(1), count(2)), (1, 25, 206));
        assert!((1_500..1_800).contains(&count(3)), "{}", count(3));
    }

    #[test]
    fn a_commune_names_its_ancestors() {
        let country = Country::new();
        let at = country.places().iter().position(|place| place.code == "120304").unwrap();
        let reply = country.reply(at, true);
        assert_eq!(reply["hierarchy"], json!(["KH", "12", "1203", "120304"]));
        assert_eq!(reply["admin_level"], 3);
        assert!(reply["name"]["en"].as_str().unwrap().starts_with("Cambodia::Phnom Penh::"));
    }
}
