//! What the proxy answers itself with: bodies, and the pages that stand in for its errors.

use std::sync::Arc;

/// A body and what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The Content-Type field.
    pub content_type: String,
    /// The bytes.
    pub body: Arc<[u8]>,
}

/// Pages in the place of the proxy's own errors, by status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorPages {
    exact: Vec<(u16, Arc<Page>)>,
    classes: Vec<(u16, Arc<Page>)>,
}

impl ErrorPages {
    /// The page of one status.
    pub fn add(&mut self, status: u16, page: Arc<Page>) {
        self.exact.push((status, page));
    }

    /// The page of all statuses that begin with the digit `class`.
    pub fn add_class(&mut self, class: u16, page: Arc<Page>) {
        self.classes.push((class, page));
    }

    /// The page for `status`: exact before class, `self` before `wider`.
    pub fn find<'p>(&'p self, wider: &'p Self, status: u16) -> Option<&'p Arc<Page>> {
        let among = |pages: &'p [(u16, Arc<Page>)], key: u16| {
            let found = pages.iter().find(|(of, _)| *of == key);
            found.map(|(_, page)| page)
        };
        let class = status / 100;
        among(&self.exact, status)
            .or_else(|| among(&wider.exact, status))
            .or_else(|| among(&self.classes, class))
            .or_else(|| among(&wider.classes, class))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(of: &[(&str, &str)]) -> ErrorPages {
        let mut pages = ErrorPages::default();
        for (key, name) in of {
            let page = Arc::new(Page {
                content_type: (*name).to_owned(),
                body: Arc::default(),
            });
            match key.strip_suffix("xx") {
                Some(class) => pages.add_class(class.parse().unwrap(), page),
                None => pages.add(key.parse().unwrap(), page),
            }
        }
        pages
    }

    #[test]
    fn exact_before_class_and_narrow_before_wide() {
        let route = pages(&[("4xx", "route 4xx"), ("503", "route 503")]);
        let listener = pages(&[
            ("404", "listener 404"),
            ("4xx", "listener 4xx"),
            ("5xx", "listener 5xx"),
            ("503", "listener 503"),
        ]);
        for (status, page) in [
            (503, "route 503"),
            (404, "listener 404"),
            (400, "route 4xx"),
            (502, "listener 5xx"),
        ] {
            let found = route.find(&listener, status).unwrap();
            assert_eq!(found.content_type, page, "{status}");
        }
        assert_eq!(ErrorPages::default().find(&route, 500), None);
    }
}
