//! Plugins on sprites, with the checks that are meant for runtimes.

use plugin_runner::RuntimeProvider;
use plugin_runner::runtime::{SpritesSettings, conformance};

use crate::sprites::Fake;

#[test]
fn a_place_on_sprites_keeps_a_runtimes_promises() {
    let fake = Fake::start();
    let (url, token) = (fake.url(), fake.token().to_owned());
    let checked = conformance::check(&mut |builder, _| {
        let settings = SpritesSettings::new(token.clone()).api_url(url.clone());
        builder
            .runtime_provider(RuntimeProvider::Sprites)
            .sprites(settings)
            .rpc_base_url("http://plugins.test:8000")
    });
    checked.unwrap_or_else(|violation| panic!("{violation}"));
    fake.finish();
}
