//! A page is bounded in number and in bytes: what it costs does not depend on how large the items are.

/// How much one page may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Items.
    pub items: u32,
    /// Bytes of these; a single larger item is a page of its own.
    pub bytes: usize,
}

/// A page of what was read.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gathered<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Whether others follow.
    pub more: bool,
}

/// An item of a page.
pub trait Weigh {
    /// About how many bytes it takes.
    fn bytes(&self) -> usize;
}

/// A page that is being filled.
#[derive(Debug)]
pub struct Filling<T> {
    bound: Bound,
    bytes: usize,
    page: Gathered<T>,
}

impl Bound {
    /// Items to ask for: one more than fits tells whether others follow.
    pub fn rows(self) -> u32 {
        self.items.saturating_add(1)
    }

    /// An empty page to fill.
    pub fn fill<T: Weigh>(self) -> Filling<T> {
        Filling {
            bound: self,
            bytes: 0,
            page: Gathered {
                items: Vec::new(),
                more: false,
            },
        }
    }

    /// The page that items begin with.
    pub fn cut<T: Weigh>(self, items: impl IntoIterator<Item = T>) -> Gathered<T> {
        let mut page = self.fill();
        let _all_fit = items.into_iter().all(|item| page.add(item));
        page.end()
    }
}

impl<T: Weigh> Filling<T> {
    /// Adds the next item; false when it does not fit, and nothing more is to be added.
    pub fn add(&mut self, item: T) -> bool {
        let most = usize::try_from(self.bound.items).unwrap_or(usize::MAX);
        self.bytes = self.bytes.saturating_add(item.bytes());
        let is_first = self.page.items.is_empty();
        self.page.more =
            self.page.items.len() >= most || (self.bytes > self.bound.bytes && !is_first);
        if !self.page.more {
            self.page.items.push(item);
        }
        !self.page.more
    }

    /// Ends it.
    pub fn end(self) -> Gathered<T> {
        self.page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weigh for usize {
        fn bytes(&self) -> usize {
            *self
        }
    }

    #[test]
    fn a_page_ends_before_it_is_too_much_and_has_at_least_one_item() {
        let bound = Bound {
            items: 3,
            bytes: 100,
        };
        let page = |sizes: &[usize]| {
            let page = bound.cut(sizes.iter().copied());
            (page.items, page.more)
        };
        assert_eq!(page(&[]), (vec![], false));
        assert_eq!(page(&[1, 2, 3]), (vec![1, 2, 3], false));
        assert_eq!(page(&[1, 2, 3, 4]), (vec![1, 2, 3], true));
        assert_eq!(page(&[60, 40]), (vec![60, 40], false));
        assert_eq!(page(&[60, 41]), (vec![60], true));
        assert_eq!(page(&[500]), (vec![500], false));
        assert_eq!(page(&[500, 1]), (vec![500], true));
    }
}
