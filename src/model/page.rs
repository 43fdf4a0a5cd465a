//! The bodies of responses from the proxy itself, and the pages that replace its default error responses.

use std::sync::Arc;

/// A body with its content type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Value of the Content-Type field.
    pub content_type: String,
    /// The body.
    pub body: Arc<[u8]>,
}

/// Pages for the proxy's own error responses, by status.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ErrorPages {
    exact: Vec<(u16, Arc<Page>)>,
    classes: Vec<(u16, Arc<Page>)>,
}

impl ErrorPages {
    /// Adds the page of one status.
    pub fn add(&mut self, status: u16, page: Arc<Page>) {
        self.exact.push((status, page));
    }

    /// Adds the page of all statuses that begin with the digit `class`.
    pub fn add_class(&mut self, class: u16, page: Arc<Page>) {
        self.classes.push((class, page));
    }

    /// Finds the page for `status`: an exact status comes before a class, and `self` before `wider`.
    pub fn find<'p>(&'p self, wider: &'p Self, status: u16) -> Option<&'p Arc<Page>> {
        let among = |pages: &'p [(u16, Arc<Page>)], key: u16| {
            let found = pages.iter().find(|(status, _)| *status == key);
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
    fn an_exact_status_comes_before_a_class_and_a_route_before_its_listener() {
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
